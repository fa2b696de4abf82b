/**
 * Deciding what to do, as plain values: from what the registry wants and what there is to the steps between. Pure;
 * src/functions/execute.ts carries the steps out. A first start, a start after a crash, a deploy and a removal are all
 * the same difference.
 */

import type { ZoneRecord } from '../net/dns.ts'
import type { ListenerAddress } from '../net/firewall.ts'
import type { Ipv6 } from '../values/ipv6.ts'
import type { FunctionName } from '../values/names.ts'
import { type PortMapping, type VersionId, versionIdOf } from './function.ts'
import type { RegistryContent } from './registry.ts'

/** A function that accepts connections now. */
export interface Served {
  readonly address: Ipv6
  readonly ports: readonly PortMapping[]
  readonly versionId: VersionId
}

export interface Observed {
  /** Functions that accept connections now, with the version that answers. */
  readonly served: ReadonlyMap<FunctionName, Served>
  /** Listeners of removed functions whose last requests are still in flight. */
  readonly draining: readonly ListenerAddress[]
  /** What the packet filter lets through, or undefined when that is not known. */
  readonly filter: readonly ListenerAddress[] | undefined
}

/** In the order in which they are carried out. */
export type Step =
  | { readonly kind: 'replaceFilter'; readonly listeners: readonly ListenerAddress[] }
  | { readonly kind: 'openFilter'; readonly listeners: readonly ListenerAddress[] }
  | { readonly kind: 'setAddresses'; readonly addresses: readonly Ipv6[] }
  | { readonly kind: 'serve'; readonly name: FunctionName }
  | { readonly kind: 'writeZone'; readonly records: readonly ZoneRecord[] }
  | { readonly kind: 'stopServing'; readonly name: FunctionName }
  | { readonly kind: 'closeFilter'; readonly listeners: readonly ListenerAddress[] }

/** Where a function is called: every port of its address. */
export const listenersOf = ({
  address,
  ports,
}: Pick<Served, 'address' | 'ports'>): readonly ListenerAddress[] =>
  ports.map(({ port }) => ({ address, port }))

const keyOf = ({ address, port }: ListenerAddress): string => `${address}.${port}`

/** The listeners of `some` that are not in `others`. */
function without(
  some: readonly ListenerAddress[],
  others: readonly ListenerAddress[],
): readonly ListenerAddress[] {
  const known = new Set(others.map(keyOf))
  return some.filter((listener) => !known.has(keyOf(listener)))
}

/**
 * The steps to what `content` wants. The filter opens before a listener does and closes after the last request;
 * a name is served before it is told, and forgotten before its listener closes.
 */
export function planReconcile(content: RegistryContent, observed: Observed): readonly Step[] {
  const functions = [...content.functions]
  const wanted = functions.flatMap(([, record]) => listenersOf(record))
  const going = [...observed.served].filter(([name]) => !content.functions.has(name))
  // Requests in flight need the address and the rule: both stay until they have ended.
  const ending = [...observed.draining, ...going.flatMap(([, fn]) => listenersOf(fn))]
  const listeners = [...wanted, ...without(ending, wanted)]
  const steps: Step[] = []
  if (observed.filter === undefined) {
    steps.push({ kind: 'replaceFilter', listeners })
  } else {
    const missing = without(listeners, observed.filter)
    if (missing.length > 0) steps.push({ kind: 'openFilter', listeners: missing })
  }
  steps.push({ kind: 'setAddresses', addresses: [...new Set(listeners.map(({ address }) => address))] })
  for (const [name, record] of functions) {
    if (observed.served.get(name)?.versionId !== versionIdOf(record)) steps.push({ kind: 'serve', name })
  }
  steps.push({ kind: 'writeZone', records: functions.map(([name, { address }]) => [name, address]) })
  for (const [name] of going) steps.push({ kind: 'stopServing', name })
  const surplus = without(observed.filter ?? [], listeners)
  if (surplus.length > 0) steps.push({ kind: 'closeFilter', listeners: surplus })
  return steps
}
