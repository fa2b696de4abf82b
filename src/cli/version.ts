/** `faas version`: of this program, and of the server where one answers. */
import { Command } from 'commander'
import { type CliContext, printResult } from './context.ts'

export function versionCommand(context: CliContext): Command {
  const command = new Command('version').description('print the versions of this program and of the server')
  return command.action(async () => {
    const client = context.createClient()
    const server = await client.call('version', {}).then(
      ({ version }) => version,
      () => null,
    )
    const versions = { client: context.version, server }
    printResult(
      context,
      command,
      versions,
      () => `faas ${context.version}\nfaasd ${server ?? `cannot be reached at ${client.server}`}`,
    )
  })
}
