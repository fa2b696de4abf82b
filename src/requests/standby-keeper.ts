/**
 * Keeps as many instances waiting ahead of connections as standby-size.ts says: starts what is missing, after each
 * connection and when one was lost, and ends what is too many when no connection has come for the function's idle
 * time. An idle function without standbys costs no timer.
 */
import { idleMsOf, type ServedFunction } from '../functions/function.ts'
import type { FdInstances } from './fd-instances.ts'
import { noDemand, noteArrival, sizeStandbys } from './standby-size.ts'

/** The instance that has just got a connection comes first: starting another takes the processor, too. */
const replaceAfterMs = 5
/** After one was lost: doubled each time, so that instances which do not last cost little. */
const firstBackoffMs = 200
const longestBackoffMs = 30_000
/** One that lived this long before it was lost had been well. */
const settledMs = 10_000
/** How much a new measurement of the start time counts. */
const startWeight = 0.25
/** A start time to begin with. */
const presumedStartMs = 50

export interface StandbyKeeper {
  onArrival(): void
  /** An instance waits, for the first time `startMs` after its start. */
  onWaiting(startMs: number | undefined): void
  onPassed(): void
  onLost(livedMs: number): void
  /** Looks, soon, whether instances are missing. Cheap. */
  replenish(): void
  stop(): void
}

export interface StandbyKeeperDeps {
  readonly instances: Pick<FdInstances, 'size' | 'starting' | 'waiting' | 'start' | 'endWaiting'>
  readonly current: () => ServedFunction
  /** How many connections wait, for which instances have been started already. */
  readonly calling: () => number
  /** Whether instances may be started ahead now. */
  readonly isActive: () => boolean
}

export function createStandbyKeeper({
  instances,
  current,
  calling,
  isActive,
}: StandbyKeeperDeps): StandbyKeeper {
  let demand = noDemand
  let startMs: number | undefined
  let backoffMs = firstBackoffMs
  let notBeforeMs = 0
  let look: NodeJS.Timeout | undefined
  let idle: NodeJS.Timeout | undefined

  const wanted = (): number => {
    const { standby = 'demand', reuse = false, maxInstances } = current().options
    const nowMs = performance.now()
    return sizeStandbys({ standby, maxInstances, demand, nowMs, startMs: startMs ?? presumedStartMs, reuse })
  }
  const missing = (): number =>
    Math.min(
      wanted() + calling() - instances.waiting() - instances.starting(),
      current().options.maxInstances - instances.size(),
    )

  const lookAfter = (ms: number): void => {
    look ??= setTimeout(() => {
      look = undefined
      if (!isActive() || missing() <= 0) return
      const waitMs = notBeforeMs - performance.now()
      if (waitMs > 0) return lookAfter(waitMs)
      for (let left = missing(); left > 0; left--) instances.start(current())
    }, ms)
  }

  const whenIdle = (): void => {
    const leftMs = demand.atMs + idleMsOf(current()) - performance.now()
    if (leftMs > 0) {
      idle = setTimeout(whenIdle, leftMs)
      return
    }
    idle = undefined
    demand = noDemand
    instances.endWaiting(wanted())
  }

  return {
    onArrival() {
      demand = noteArrival(demand, performance.now())
    },
    onWaiting(measuredMs = startMs) {
      if (measuredMs !== undefined) {
        startMs = startMs === undefined ? measuredMs : startMs + (measuredMs - startMs) * startWeight
      }
      idle ??= setTimeout(whenIdle, idleMsOf(current()))
    },
    onPassed() {
      backoffMs = firstBackoffMs
    },
    onLost(livedMs) {
      backoffMs = livedMs > settledMs ? firstBackoffMs : Math.min(backoffMs * 2, longestBackoffMs)
      notBeforeMs = performance.now() + backoffMs
      lookAfter(backoffMs)
    },
    replenish() {
      if (look === undefined && isActive() && missing() > 0) lookAfter(replaceAfterMs)
    },
    stop() {
      clearTimeout(look)
      clearTimeout(idle)
    },
  }
}
