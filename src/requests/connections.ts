/**
 * The connections of one function that were taken from the kernel and wait for an instance, oldest first, and the
 * count of what became of all. Each owns its descriptor until it ends, in one of three ways: *passed* to an instance;
 * *refused* with a reset when no instance became free in time; *failed* with a reset when an instance that was
 * started for it could not serve.
 */
import { closeFd, resetTcp } from '../host/native/sockets.ts'
import type { ConnectionOutcome, Metrics } from '../telemetry/metrics.ts'
import type { FunctionName } from '../values/names.ts'

export interface Connections {
  readonly counts: Readonly<Record<'accepted' | ConnectionOutcome, number>>
  /** How many wait. */
  readonly waiting: number
  /** Takes over the descriptor of an accepted connection, as the last of those that wait. */
  add(fd: number): void
  /** The descriptor of the one that has waited longest. It stays ours. */
  oldest(): number | undefined
  endOldest(outcome: ConnectionOutcome): void
  /** Lets the last one that was added wait for so long, and then calls `onOverdue`. */
  limitLast(waitMs: number, onOverdue: () => void): void
  /** Refuses those past their time, but for the first `promised` of all, for which an instance is starting. */
  refuseOverdue(promised: number): void
  refuseAll(): void
}

interface Waiting {
  readonly fd: number
  timer: NodeJS.Timeout | undefined
  overdue: boolean
}

export function createConnections(name: FunctionName, metrics: Metrics): Connections {
  const queue: Waiting[] = []
  const counts = { accepted: 0, passed: 0, refused: 0, failed: 0 }

  const end = ({ fd, timer }: Waiting, outcome: ConnectionOutcome): void => {
    clearTimeout(timer)
    counts[outcome]++
    metrics.connectionEnded(name, outcome)
    if (outcome === 'passed') closeFd(fd)
    else resetTcp(fd)
  }

  return {
    counts,
    get waiting() {
      return queue.length
    },
    add(fd) {
      counts.accepted++
      metrics.connectionAccepted(name)
      queue.push({ fd, timer: undefined, overdue: false })
    },
    oldest: () => queue[0]?.fd,
    endOldest(outcome) {
      const first = queue.shift()
      if (first) end(first, outcome)
    },
    limitLast(waitMs, onOverdue) {
      const last = queue.at(-1)
      if (last === undefined || last.timer !== undefined) return
      last.timer = setTimeout(() => {
        last.overdue = true
        onOverdue()
      }, waitMs)
    },
    refuseOverdue(promised) {
      for (let index = queue.length - 1; index >= promised; index--) {
        const waiting = queue[index]
        if (!waiting?.overdue) continue
        queue.splice(index, 1)
        end(waiting, 'refused')
      }
    },
    refuseAll() {
      for (const waiting of queue.splice(0)) end(waiting, 'refused')
    },
  }
}
