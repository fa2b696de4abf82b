/** What serves one function, whatever its contract. */
import type { ServedFunction } from '../functions/function.ts'
import type { Instance } from './instance.ts'

export interface ServiceStats {
  readonly instances: number
  /** Of these, the ones of the `fd` contract that wait for a connection. */
  readonly standbys: number
  /** Ids of the containers that run now. */
  readonly ids: readonly string[]
  /** Whether a relay copies between callers and an instance. */
  readonly relayed: boolean
  /** Whether the instances are frozen until somebody calls. */
  readonly frozen: boolean
  /** Connections that wait for an instance, of those that were taken from the kernel. */
  readonly waiting: number
  readonly accepted: number
  readonly passed: number
  readonly refused: number
  readonly failed: number
  /** Why the last instance could not serve; undefined once one has. */
  readonly failure: string | undefined
}

export interface Service {
  readonly current: ServedFunction
  /** Serves further connections with another version of the same contract; requests in flight are not touched. */
  update(fn: ServedFunction): void
  /** Resolves when the current version is the one that gets new connections. */
  inPlace(): Promise<void>
  /** Starts or stops accepting; what arrives meanwhile waits in the kernel. */
  setAccepting(accepting: boolean): void
  /** Counts an instance that was found after a restart, until it ends. */
  adopt(instance: Instance): void
  /** Resolves when no instance of a version other than the current one is left. */
  drained(): Promise<void>
  /** Stops accepting: what waits moves to a service that listens at the same address, or is reset. It resolves when the last instance has ended. */
  close(): Promise<void>
  stats(): ServiceStats
}
