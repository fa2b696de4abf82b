/**
 * How many instances of the `fd` contract wait ahead of the next connections. Pure: times are handed in, in
 * milliseconds of any clock that never goes back.
 *
 * By demand that is what arrives, on average, while one instance starts, and as much again as such arrivals scatter
 * (they come independently of each other: the square root of their number). A connection that comes alone starts none:
 * waiting instances pay where another connection is likely soon.
 */

/** Connections of the recent past, each counting less the longer ago it came. */
export interface Demand {
  readonly level: number
  readonly atMs: number
}

export const noDemand: Demand = { level: 0, atMs: 0 }

/** After this long a connection counts 1/e. */
export const demandWindowMs = 2_000
/** One connection alone is a level of 1; this one had another within 4.6 s before it. */
const steadyLevel = 1.1

const levelAt = ({ level, atMs }: Demand, nowMs: number): number =>
  level * Math.exp(-Math.max(0, nowMs - atMs) / demandWindowMs)

export const noteArrival = (demand: Demand, nowMs: number): Demand => ({
  level: levelAt(demand, nowMs) + 1,
  atMs: nowMs,
})

export interface Sizing {
  /** What the deploy says: so many, always; or by demand. */
  readonly standby: number | 'demand'
  readonly maxInstances: number
  readonly demand: Demand
  readonly nowMs: number
  /** From the start of an instance until it waits. */
  readonly startMs: number
  /** Instances come back by themselves when they have answered: none is started in advance. */
  readonly reuse: boolean
}

export function sizeStandbys({ standby, maxInstances, demand, nowMs, startMs, reuse }: Sizing): number {
  if (standby !== 'demand') return Math.min(standby, maxInstances)
  const level = levelAt(demand, nowMs)
  if (reuse || level < steadyLevel) return 0
  const duringStart = (level / demandWindowMs) * startMs
  return Math.min(Math.ceil(duringStart + Math.sqrt(duringStart)), maxInstances)
}
