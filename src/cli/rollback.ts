/** `faas rollback NAME [VERSION]`: deploys an earlier version again. */
import { Command } from 'commander'
import type { CliContext } from './context.ts'
import { printDeployed } from './new.ts'

export function rollbackCommand(context: CliContext): Command {
  const command = new Command('rollback')
    .description('deploy an earlier version of a function again')
    .argument('<name>', 'name of the function')
    .argument('[version]', 'its number, or the first digits of its image; the one before when left out')
  return command.action(async (name: string, version: string | undefined) => {
    const body = version === undefined ? {} : { version }
    printDeployed(context, command, await context.createClient().call('rollback', { name, body }))
  })
}
