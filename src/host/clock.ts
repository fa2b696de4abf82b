/** Time, handed in so that tests can replace it. Deadlines use the monotonic clock: it never jumps. */
import { setTimeout as delay } from 'node:timers/promises'

export interface Clock {
  /** Milliseconds since an arbitrary start; never goes back. */
  monotonicMs(): number
  /** The wall clock, for people and for records only. */
  now(): Date
  /** Resolves after `ms`, or as soon as `signal` aborts: look at the signal afterwards. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  now: () => new Date(),
  sleep: (ms, signal) => delay(ms, undefined, signal ? { signal } : {}).catch(() => {}),
}
