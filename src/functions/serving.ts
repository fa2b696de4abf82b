/** What deploy, removal and reconcile need of those who serve requests; src/requests implements it. */
import type { FunctionName } from '../values/names.ts'
import type { ContractName, ServedFunction } from './function.ts'

export interface Serving {
  /** Serves `fn`, or serves it with this version from now on, at the same listener. Throws SYSCALL_FAILED. */
  open(fn: ServedFunction): Promise<void>
  /**
   * Shows that `fn` works with one of `contracts`, without a connection, and answers with which. Throws
   * FUNCTION_NOT_PROVEN, RUNTIME_FAILED.
   */
  prove(fn: ServedFunction, contracts: readonly ContractName[], signal: AbortSignal): Promise<ContractName>
  /** Resolves when the current version of `name` is the one that gets new connections. */
  inPlace(name: FunctionName): Promise<void>
  /** Resolves when no instance of an older version of `name` is left. */
  drained(name: FunctionName): Promise<void>
  /** Stops accepting for `name`; resolves when its last instance has ended. */
  close(name: FunctionName): Promise<void>
  served(): ReadonlyMap<FunctionName, ServedFunction>
}
