/** The commands as one tree. `--json` works before or after any command. */
import { Command } from 'commander'
import type { Transport } from '../api/transport.ts'
import { completionCommand } from './completion.ts'
import type { CliContext } from './context.ts'
import { describeCommand } from './describe.ts'
import { dialStdioCommand } from './dial-stdio.ts'
import { renderExitCodes } from './exit-codes.ts'
import { ipCommand, listCommand } from './list.ts'
import { logsCommand } from './logs.ts'
import { newCommand } from './new.ts'
import { removeCommand } from './remove.ts'
import { rollbackCommand } from './rollback.ts'
import { statusCommand } from './status.ts'
import { versionCommand } from './version.ts'
import { versionsCommand } from './versions.ts'

export interface ProgramDeps {
  readonly context: CliContext
  readonly createTransport: () => Transport
  /** Commands that other files make: `up`, `down`, `vpn`. */
  readonly more: readonly Command[]
}

/** Throws commander's CommanderError for a wrong command line, and whatever the command throws. */
export function createProgram({ context, createTransport, more }: ProgramDeps): Command {
  const program = new Command('faas')
    .description('Your own functions on your own server, reachable by your own devices.')
    .version(context.version, '-V, --version', 'print the version of this program')
    .addHelpText(
      'after',
      `\n${renderExitCodes()}\n\nFAAS_HOST=ssh://user@server runs a command against another machine.`,
    )
  const commands = [
    statusCommand(context),
    newCommand(context),
    listCommand(context),
    ipCommand(context),
    describeCommand(context),
    logsCommand(context),
    versionsCommand(context),
    rollbackCommand(context),
    removeCommand(context),
    ...more,
    versionCommand(context),
    completionCommand(context, () => program),
  ]
  for (const command of commands) program.addCommand(command)
  program.addCommand(dialStdioCommand(context, createTransport), { hidden: true })
  prepare(program, context)
  return program
}

/** Gives every command `--json`, throws instead of exiting, and keeps to the context's streams. */
function prepare(command: Command, context: CliContext): void {
  if (!command.options.some(({ long }) => long === '--json'))
    command.option('--json', 'print the result as JSON')
  command.exitOverride().configureOutput({
    writeOut: (text) => void context.stdout.write(text),
    writeErr: (text) => void context.stderr.write(text),
    outputError: (text, write) => write(text.replace(/^error: /, 'error: ')),
  })
  if (command.commands.length === 0) command.showHelpAfterError('(see --help)')
  for (const child of command.commands) prepare(child, context)
}
