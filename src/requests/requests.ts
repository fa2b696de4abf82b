/**
 * All functions that are served, by name, and the one gate before them: no connection is accepted or passed while
 * the packet filter's rule against originating sockets is not in place.
 */

import type { ContractName, ServedFunction } from '../functions/function.ts'
import { closeFd } from '../host/native/sockets.ts'
import { toFaasError } from '../values/errors.ts'
import type { FunctionName } from '../values/names.ts'
import { createFdService } from './fd-service.ts'
import { takeHeldListeners } from './holdings.ts'
import {
  adoptInstance,
  type FoundContainer,
  functionNameOf,
  removeLeftInstances,
  versionOf,
} from './instance.ts'
import { createListenService, type ListenServiceDeps } from './listen-service.ts'
import { createListenerGroup, type ListenerGroup } from './listeners.ts'
import { proveFunction } from './prove.ts'
import type { Service, ServiceStats } from './service.ts'

export interface Requests {
  /** Serves `fn`, or serves it with this version from now on. Its listener stays the same one. */
  open(fn: ServedFunction): Promise<void>
  /** See `proveFunction`. */
  prove(fn: ServedFunction, contracts: readonly ContractName[], signal: AbortSignal): Promise<ContractName>
  /** Resolves when the current version of `name` is the one that gets new connections. */
  inPlace(name: FunctionName): Promise<void>
  /** Resolves when instances of older versions of `name` have ended. */
  drained(name: FunctionName): Promise<void>
  /** Stops serving `name`; resolves when its last instance has ended. Unknown names are no error. */
  close(name: FunctionName): Promise<void>
  /** Opens or shuts the gate for all functions. Shut at first. */
  setGate(open: boolean): void
  stats(name: FunctionName): ServiceStats | undefined
  /** Which functions are served, with their version. */
  served(): ReadonlyMap<FunctionName, ServedFunction>
  /**
   * After a restart: takes over containers whose function is served and which hold a request, and removes every
   * other trace of earlier instances. Answers how many of each.
   */
  recover(): Promise<{ adopted: number; removed: number }>
  /** Stops accepting and waits up to `graceMs` for requests in flight; instances that go on stay. */
  shutdown(graceMs: number): Promise<void>
}

const createService = { fd: createFdService, listen: createListenService } as const

interface Entry {
  readonly service: Service
  readonly group: ListenerGroup
  /** Services of another contract that the function had before, until they have ended. */
  readonly before: readonly Promise<void>[]
}

/** The same listeners do for both. */
const isSameService = (one: ServedFunction, other: ServedFunction): boolean =>
  one.contract === other.contract && JSON.stringify(one.ports) === JSON.stringify(other.ports)

export interface RequestsDeps extends Omit<ListenServiceDeps, 'mayPass'> {
  /** Containers of ours that were there before this daemon. */
  readonly found: readonly FoundContainer[]
}

export function createRequests(deps: RequestsDeps): Requests {
  const entries = new Map<FunctionName, Entry>()
  const services = (): Service[] => [...entries.values()].map(({ service }) => service)
  let gateOpen = false
  const serviceDeps = { ...deps, mayPass: () => gateOpen }

  /** Listeners that instances of this version hold which an earlier daemon has started. */
  const inheritListeners = async (fn: ServedFunction): Promise<ReadonlyMap<number, number>> => {
    const inherited = new Map<number, number>()
    if (fn.contract !== 'listen') return inherited
    for (const { id } of deps.found) {
      if (functionNameOf(id) !== fn.name || versionOf(id, deps) !== fn.versionId) continue
      const held = await takeHeldListeners(await deps.listProcesses(id), fn.address)
      for (const [port, fd] of held) {
        if (inherited.has(port)) closeFd(fd)
        else inherited.set(port, fd)
      }
    }
    return inherited
  }

  return {
    async open(fn) {
      const entry = entries.get(fn.name)
      if (entry && isSameService(entry.service.current, fn)) return entry.service.update(fn)
      const held = entry ? undefined : await inheritListeners(fn)
      const group = entry?.group ?? createListenerGroup(fn.address)
      const service = createService[fn.contract](fn, group, serviceDeps, held)
      service.setAccepting(gateOpen)
      // After the new one listens, so that what waits at the old one's listeners moves there.
      const closing = entry?.service.close().catch((error: unknown) => {
        deps.log.error(fn.name, `the service before could not be closed: ${toFaasError(error).message}`)
      })
      const before = entry && closing ? [...entry.before, closing] : []
      entries.set(fn.name, { service, group, before })
    },
    prove: (fn, contracts, signal) => proveFunction(fn, contracts, deps, signal),
    inPlace: async (name) => entries.get(name)?.service.inPlace(),
    async drained(name) {
      const entry = entries.get(name)
      await Promise.all([entry?.service.drained(), ...(entry?.before ?? [])])
    },
    async close(name) {
      const entry = entries.get(name)
      if (!entry) return
      entries.delete(name)
      await Promise.all([entry.service.close(), ...entry.before])
      if (!entries.has(name)) deps.metrics.forget(name)
    },
    setGate(open) {
      gateOpen = open
      for (const service of services()) service.setAccepting(open)
    },
    stats: (name) => entries.get(name)?.service.stats(),
    served: () => new Map([...entries].map(([name, { service }]) => [name, service.current])),
    async recover() {
      const { found } = deps
      const kept = new Set<string>()
      for (const container of found) {
        const adopted = await adoptInstance(container, deps).catch((error: unknown) => {
          deps.log.error(
            container.id,
            `could neither be taken over nor removed: ${toFaasError(error).message}`,
          )
          return undefined
        })
        const service = adopted && services().find(({ current }) => current.name === adopted.functionName)
        if (adopted && service) {
          service.adopt(adopted.instance)
          kept.add(container.id)
        } else if (adopted) {
          adopted.instance.kill()
          await adopted.instance.ended
        }
      }
      const removed = await removeLeftInstances(kept, deps)
      return { adopted: kept.size, removed: removed.length + found.length - kept.size }
    },
    async shutdown(graceMs) {
      for (const service of services()) service.setAccepting(false)
      const closing = Promise.all(services().map((service) => service.close()))
      const { promise: graceOver, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, graceMs)
      await Promise.race([closing, graceOver])
      clearTimeout(timer)
    },
  }
}
