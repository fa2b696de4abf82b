/** What every command is handed: the three streams, the environment, a client of the API, and the end that Ctrl-C asks for. */
import type { Readable, Writable } from 'node:stream'
import type { Command } from 'commander'
import type { Client } from '../api/client.ts'

export interface CliContext {
  readonly stdin: Readable & { readonly isTTY?: boolean }
  readonly stdout: Writable & { readonly isTTY?: boolean }
  readonly stderr: Writable & { readonly isTTY?: boolean }
  readonly env: Readonly<Record<string, string | undefined>>
  readonly version: string
  /** A client of the server that FAAS_HOST names. Throws OPTION_INVALID; nothing is connected yet. */
  createClient(): Client
  /** Aborts at the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal
}

/** Writes a result to stdout: `value` as JSON with `--json` (of the command or before it), else the text. */
export function printResult(context: CliContext, command: Command, value: unknown, text: () => string): void {
  const { json } = command.optsWithGlobals<{ json?: boolean }>()
  context.stdout.write(json ? `${JSON.stringify(value, null, 2)}\n` : ensureNewline(text()))
}

export const isJson = (command: Command): boolean =>
  command.optsWithGlobals<{ json?: boolean }>().json === true

/** Writes what is no result to stderr. */
export function printNote(context: CliContext, text: string): void {
  context.stderr.write(ensureNewline(text))
}

const ensureNewline = (text: string): string => (text === '' || text.endsWith('\n') ? text : `${text}\n`)
