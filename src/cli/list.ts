/** `faas list` and `faas ip`. */
import { Command } from 'commander'
import { type CliContext, printResult } from './context.ts'
import { renderArgv, renderTable } from './text.ts'

export function listCommand(context: CliContext): Command {
  const command = new Command('list').alias('ls').description('list the functions')
  return command.action(async () => {
    const functions = await context.createClient().call('list', {})
    printResult(context, command, functions, () => {
      const names = Object.keys(functions).sort()
      if (names.length === 0) return 'no functions yet: deploy one with faas new NAME'
      return renderTable(
        ['NAME', 'ADDRESS', 'STATE', 'INSTANCES', 'CREATED', 'COMMAND'],
        names.flatMap((name) => {
          const one = functions[name]
          if (!one) return []
          return [
            [
              name,
              one.ip,
              one.state ?? '',
              String(one.instances ?? ''),
              one.created ?? '',
              renderArgv(one.cmd),
            ],
          ]
        }),
      )
    })
  })
}

export function ipCommand(context: CliContext): Command {
  const command = new Command('ip')
    .description("print a function's address")
    .argument('<name>', 'name of the function')
  return command.action(async (name: string) => {
    const address = await context.createClient().call('address', { name })
    printResult(context, command, address, () => address.ip)
  })
}
