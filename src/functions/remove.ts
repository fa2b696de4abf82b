/**
 * Removal: commit first, then undo. The freed address rests, so that no cached answer leads to another function;
 * requests in flight finish, and the address and its listener's rule stay until then.
 */

import { restingAddresses } from '../net/addresses.ts'
import { FaasError, toFaasError } from '../values/errors.ts'
import type { Ipv6 } from '../values/ipv6.ts'
import type { FunctionName } from '../values/names.ts'
import { failuresOf } from './execute.ts'
import type { FunctionRecord } from './function.ts'
import type { Registry } from './registry.ts'
import { type FunctionsDeps, type NameLocks, nameTimeoutMs } from './release.ts'

/** The record of a function that is deployed. Throws FUNCTION_UNKNOWN. */
export function recordOf(registry: Registry, name: FunctionName): FunctionRecord {
  const record = registry.content.functions.get(name)
  if (record) return record
  throw new FaasError('FUNCTION_UNKNOWN', `there is no function ${name}`, {
    hint: '`faas list` shows what there is',
  })
}

export type Remove = (
  name: FunctionName,
) => Promise<{ readonly address: Ipv6; readonly warnings: readonly string[] }>

export function createRemove(
  deps: Pick<FunctionsDeps, 'registry' | 'reconciler' | 'names' | 'clock'> & { readonly locks: NameLocks },
): Remove {
  const { registry, reconciler, names, clock, locks } = deps
  return async (name) => {
    using _lock = locks.take(name)
    const { address } = recordOf(registry, name)
    await registry.commit(({ functions, resting }) => {
      const left = new Map(functions)
      left.delete(name)
      const now = clock.now().getTime()
      return { functions: left, resting: [...restingAddresses(resting, now), { address, freedAtMs: now }] }
    })
    const warnings = failuresOf(name, await reconciler.reconcile())
    if (warnings.length > 0) return { address, warnings }
    try {
      await names.waitForAddress(name, undefined, nameTimeoutMs)
      return { address, warnings: [] }
    } catch (error) {
      return { address, warnings: [toFaasError(error).message] }
    }
  }
}
