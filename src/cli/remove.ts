/** `faas rm NAME…`: removes functions, going on past one that fails. */
import { Command } from 'commander'
import type { FunctionRemoved } from '../api/answers.ts'
import { toFaasError } from '../values/errors.ts'
import { type CliContext, printNote, printResult } from './context.ts'
import { printFailure } from './failure.ts'

export function removeCommand(context: CliContext): Command {
  const command = new Command('rm')
    .description('remove functions')
    .argument('<names...>', 'names of the functions')
  return command.action(async (names: string[]) => {
    const client = context.createClient()
    const removed: FunctionRemoved[] = []
    const failures: unknown[] = []
    for (const name of names) {
      await client.call('remove', { name }).then(
        (one) => {
          removed.push(one)
          for (const warning of one.warnings ?? []) printNote(context, `warning: ${warning}`)
        },
        (error: unknown) => failures.push(error),
      )
    }
    if (removed.length > 0)
      printResult(context, command, removed, () => removed.map(({ name }) => name).join('\n'))
    const last = failures.pop()
    for (const error of failures) printFailure(context, toFaasError(error))
    if (last !== undefined) throw last
  })
}
