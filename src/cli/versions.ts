/** `faas versions NAME`: what a function was before, and can be again. */
import { Command } from 'commander'
import { type CliContext, printResult } from './context.ts'
import { renderArgv, renderTable } from './text.ts'

/** Enough of a digest to name it by. */
const shownHexDigits = 12

export function versionsCommand(context: CliContext): Command {
  const command = new Command('versions')
    .description('list the versions of a function that are kept')
    .argument('<name>', 'name of the function')
  return command.action(async (name: string) => {
    const versions = await context.createClient().call('versions', { name })
    printResult(context, command, versions, () =>
      renderTable(
        ['VERSION', 'IMAGE', 'CONTRACT', 'DEPLOYED', 'NOTE', 'COMMAND'],
        versions.map(({ version, image, contract, deployed, current, rollback_of, cmd }) => [
          String(version),
          image.slice('sha256:'.length).slice(0, shownHexDigits),
          contract,
          deployed,
          [current ? 'current' : '', rollback_of === null ? '' : `rollback to ${rollback_of}`]
            .filter((note) => note !== '')
            .join(', '),
          renderArgv(cmd),
        ]),
      ),
    )
  })
}
