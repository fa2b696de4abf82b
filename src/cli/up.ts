/** `faas up`: the whole platform in the foreground. Ends at Ctrl-C or `faas down`, after everything has stopped. */
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { readConfig } from '../daemon/config.ts'
import { supervisePlatform } from '../daemon/supervisor.ts'
import { systemClock } from '../host/clock.ts'
import { exec } from '../host/exec.ts'
import { createLog } from '../telemetry/log.ts'
import { FaasError } from '../values/errors.ts'
import type { CliContext } from './context.ts'

/** Throws NOT_ROOT unless this process may do what the platform needs. */
export function requireRoot(what: string): void {
  if (process.getuid?.() === 0) return
  throw new FaasError('NOT_ROOT', `${what} must be run by root`, {
    hint: `sudo faas ${what.split(' ').at(-1)}`,
  })
}

export function upCommand(context: CliContext): Command {
  const command = new Command('up').description(
    'run the whole platform here, in the foreground, until Ctrl-C',
  )
  return command.action(async () => {
    requireRoot('faas up')
    const daemon = fileURLToPath(new URL('../daemon/main.ts', import.meta.url))
    const log = createLog({ write: (line) => void context.stdout.write(line) })
    await using _platform = await supervisePlatform({
      config: readConfig(context.env),
      exec,
      clock: systemClock,
      log,
      daemonCommand: [process.execPath, daemon],
    })
    await new Promise<void>((resolve) => {
      if (context.signal.aborted) resolve()
      context.signal.addEventListener('abort', () => resolve(), { once: true })
    })
    log.info('up', 'stopping')
  })
}
