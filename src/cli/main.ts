/** The `faas` program: reads the environment, constructs what the commands need, ends with their exit code. */
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { createClient } from '../api/client.ts'
import { createTransport } from '../api/transport.ts'
import { systemClock } from '../host/clock.ts'
import { exec } from '../host/exec.ts'
import type { CliContext } from './context.ts'
import { downCommand } from './down.ts'
import { exitCodes } from './exit-codes.ts'
import { runCli } from './run.ts'
import { upCommand } from './up.ts'
import { vpnCommand } from './vpn/vpn.ts'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}
const interrupt = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // Whoever asks twice does not want to wait.
    if (interrupt.signal.aborted) process.exit(exitCodes.interrupted.code)
    interrupt.abort()
  })
}
// `faas logs | head`: the reader has what it wanted.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

const transport = () => createTransport(process.env['FAAS_HOST'])
const context: CliContext = {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  version,
  createClient: () => createClient({ transport: transport() }),
  signal: interrupt.signal,
}
const vpn = vpnCommand(context, {
  exec,
  clock: systemClock,
  isRoot: process.geteuid?.() === 0,
  hostname: hostname(),
})
const code = await runCli(process.argv.slice(2), {
  context,
  createTransport: transport,
  more: [upCommand(context), downCommand(context), vpn],
})
// Not by falling off the end: an open standard input would hold the process. Writes to stdout are synchronous here.
process.exit(code)
