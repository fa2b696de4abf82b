/** The `faasd` program: reads the environment, starts the daemon, and stops it in order at SIGTERM or SIGINT. */
import { readFileSync } from 'node:fs'
import { systemClock } from '../host/clock.ts'
import { exec } from '../host/exec.ts'
import { createLog } from '../telemetry/log.ts'
import { toFaasError } from '../values/errors.ts'
import { readConfig } from './config.ts'
import { startDaemon } from './daemon.ts'

const log = createLog({ write: (line) => void process.stdout.write(line) })
const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** A start that fails is worth another try only after whoever runs the server has read why. */
function failStart(thrown: unknown): never {
  const { code, message, hint } = toFaasError(thrown)
  log.error('init', `${code}: ${message}`)
  if (hint) log.error('init', `hint: ${hint}`)
  process.exit(1)
}

/** A parent that dies tells it once for each of its threads (PR_SET_PDEATHSIG); who asks again later means it. */
const sameRequestMs = 1_000
const { promise: stopAsked, resolve: askStop } = Promise.withResolvers<NodeJS.Signals>()
let askedMs: number | undefined
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    const now = systemClock.monotonicMs()
    askedMs ??= now
    if (now - askedMs > sameRequestMs) process.exit(1)
    askStop(signal)
  })
}

// A promise that nobody awaits must not end every function's daemon; what it was about is healed by its room.
process.on('unhandledRejection', (error) =>
  log.error('daemon', `a failure nobody waited for: ${String(error)}`),
)

try {
  const daemon = await startDaemon({
    config: readConfig(process.env),
    version,
    exec,
    clock: systemClock,
    log,
  })
  log.info('init', 'faasd started successfully')
  const signal = await stopAsked
  log.info('stop', `${signal}: stopping`)
  await daemon[Symbol.asyncDispose]()
  log.info('stop', 'faasd stopped')
  process.exit(0)
} catch (error) {
  failStart(error)
}
