/**
 * `faas dial-stdio` (hidden): joins standard input and output to the API's socket. `FAAS_HOST=ssh://…` runs it on the
 * server, as `docker` does with its `system dial-stdio`. Each side's end is passed on, so that a half-closed connection works.
 */
import { pipeline } from 'node:stream/promises'
import { Command } from 'commander'
import type { Transport } from '../api/transport.ts'
import type { CliContext } from './context.ts'

export function dialStdioCommand(context: CliContext, createTransport: () => Transport): Command {
  return new Command('dial-stdio')
    .description('join standard input and output to the API')
    .action(async () => {
      const connection = await createTransport().connect()
      const sending = pipeline(context.stdin, connection, { end: true }).catch(() => {})
      await pipeline(connection, context.stdout, { end: false })
      connection.destroy()
      // The caller may still hold its end open.
      context.stdin.destroy()
      await sending
    })
}
