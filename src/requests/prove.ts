/** Shows that a version works before it takes any connection: an instance of it connects to its control socket. */
import { controlSocketDestination } from '../contracts/fd.ts'
import type { ServedFunction } from '../functions/function.ts'
import { FaasError } from '../values/errors.ts'
import { type Instance, type InstanceDeps, startInstance } from './instance.ts'

const shownLines = 5

/**
 * Starts one instance of `fn` and ends it as soon as it has connected. Throws FUNCTION_NOT_PROVEN, with the last
 * lines that it printed, when it ends before or takes longer than its `connectMs`; RUNTIME_FAILED when it cannot be
 * started. Nothing of the instance is left either way.
 */
export async function proveFunction(
  fn: ServedFunction,
  deps: InstanceDeps,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted()
  const { connectMs } = fn.options.timeouts
  let instance: Instance | undefined
  let connected = false
  let late = false
  const stop = (): void => {
    late = !connected
    instance?.kill()
  }
  const timer = setTimeout(stop, connectMs)
  signal.addEventListener('abort', stop, { once: true })
  try {
    instance = await startInstance(
      fn,
      (handler) => {
        using _closed = handler
        connected = true
        instance?.kill()
      },
      deps,
    )
    if (connected || late) instance.kill()
    const status = await instance.ended
    signal.throwIfAborted()
    if (connected) return
    const ending = late
      ? `did not connect to ${controlSocketDestination} within ${connectMs} ms`
      : `${endingOf(status)} before it connected to ${controlSocketDestination}`
    throw notProven(fn, instance.id, ending, deps)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', stop)
  }
}

function endingOf(status: { code: number | undefined; signal: number | undefined } | undefined): string {
  if (status?.code !== undefined) return `ended with exit code ${status.code}`
  return status?.signal === undefined ? 'ended' : `was ended by signal ${status.signal}`
}

function notProven(fn: ServedFunction, id: string, ending: string, deps: InstanceDeps): FaasError {
  const printed = deps.logs.tail(fn.name, 1000).filter((entry) => entry.instance === id)
  const words = printed.slice(-shownLines).map(({ text }) => text)
  const last = words.length === 0 ? 'it printed nothing' : `its last lines: ${words.join(' | ')}`
  return new FaasError('FUNCTION_NOT_PROVEN', `an instance of ${fn.name} ${ending}; ${last}`, {
    hint: `the image must connect to ${controlSocketDestination} and receive its connection there (docs/contracts.md)`,
  })
}
