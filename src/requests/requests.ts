/**
 * All functions that are served, by name, and the one gate before them: no connection is accepted or passed while
 * the packet filter's rule against originating sockets is not in place.
 */
import type { ContractName, ServedFunction } from '../functions/function.ts'
import type { FunctionName } from '../values/names.ts'
import { createFdService } from './fd-service.ts'
import { adoptInstance, type FoundContainer, type InstanceDeps, removeLeftInstances } from './instance.ts'
import { createListenService, type ListenServiceDeps } from './listen-service.ts'
import { type Listeners, openListeners } from './listeners.ts'
import { proveFunction } from './prove.ts'
import type { Service, ServiceStats } from './service.ts'

export interface Requests {
  /** Serves `fn`, or serves it with this version from now on. Its listener stays the same one. */
  open(fn: ServedFunction): void
  /** See `proveFunction`. */
  prove(fn: ServedFunction, contracts: readonly ContractName[], signal: AbortSignal): Promise<ContractName>
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
  recover(found: readonly FoundContainer[]): Promise<{ adopted: number; removed: number }>
  /** Stops accepting and waits up to `graceMs` for requests in flight; instances that go on stay. */
  shutdown(graceMs: number): Promise<void>
}

const createService = { fd: createFdService, listen: createListenService } as const

interface Entry {
  readonly service: Service
  readonly listeners: Listeners
  /** Services of another contract that the function had before, until they have ended. */
  readonly before: readonly Promise<void>[]
}

export function createRequests(deps: ListenServiceDeps): Requests {
  const entries = new Map<FunctionName, Entry>()
  const services = (): Service[] => [...entries.values()].map(({ service }) => service)
  let gateOpen = false
  const serviceDeps = { ...deps, mayPass: () => gateOpen }

  return {
    open(fn) {
      const entry = entries.get(fn.name)
      entry?.listeners.setPorts(fn.ports)
      if (entry && entry.service.current.contract === fn.contract) return entry.service.update(fn)
      const listeners = entry?.listeners ?? openListeners(fn.address, fn.ports)
      const service = createService[fn.contract](fn, listeners, serviceDeps)
      // The listeners go on; what the other contract serves still is drained with this function.
      const before = entry ? [...entry.before, entry.service.close()] : []
      entries.set(fn.name, { service, listeners, before })
      service.setAccepting(gateOpen)
    },
    prove: (fn, contracts, signal) => proveFunction(fn, contracts, deps, signal),
    async drained(name) {
      const entry = entries.get(name)
      await Promise.all([entry?.service.drained(), ...(entry?.before ?? [])])
    },
    async close(name) {
      const entry = entries.get(name)
      if (!entry) return
      entries.delete(name)
      entry.service.setAccepting(false)
      const closing = Promise.all([entry.service.close(), ...entry.before])
      entry.listeners[Symbol.dispose]()
      await closing
      deps.metrics.forget(name)
    },
    setGate(open) {
      gateOpen = open
      for (const service of services()) service.setAccepting(open)
    },
    stats: (name) => entries.get(name)?.service.stats(),
    served: () => new Map([...entries].map(([name, { service }]) => [name, service.current])),
    async recover(found) {
      const kept = new Set<string>()
      for (const container of found) {
        const adopted = await adoptInstance(container, deps)
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
