/** Waits for what another program does in its own time. */
import { setTimeout as delay } from 'node:timers/promises'

export interface EventuallyOptions {
  /** Default 10,000. */
  readonly timeoutMs?: number
  /** Pause between attempts. Default 50. */
  readonly intervalMs?: number
}

/**
 * Repeats `attempt` until it returns instead of throwing, and answers what it returned. Past the time limit it
 * throws an Error that names `what` was waited for, with the last failure as its cause.
 */
export async function eventually<T>(
  what: string,
  attempt: () => Promise<T> | T,
  { timeoutMs = 10_000, intervalMs = 50 }: EventuallyOptions = {},
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (performance.now() >= deadline) {
        const last = error instanceof Error ? error.message : String(error)
        throw new Error(`${what}: not within ${timeoutMs} ms; last: ${last}`, { cause: error })
      }
    }
    await delay(intervalMs)
  }
}
