/**
 * All functions that are served, by name, and the one gate before them: no connection is accepted or passed while
 * the packet filter's rule against originating sockets is not in place.
 */
import type { ServedFunction } from '../functions/function.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { FunctionName } from '../values/names.ts'
import { createFdService, type FdService, type ServiceStats } from './fd-service.ts'
import { adoptInstance, type FoundContainer, type InstanceDeps, removeLeftInstances } from './instance.ts'
import { proveFunction } from './prove.ts'

export interface Requests {
  /** Serves `fn`, or serves it with this version from now on. Its listener stays the same one. */
  open(fn: ServedFunction): void
  /** See `proveFunction`. */
  prove(fn: ServedFunction, signal: AbortSignal): Promise<void>
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

export function createRequests(deps: InstanceDeps & { readonly metrics: Metrics }): Requests {
  const services = new Map<FunctionName, FdService>()
  let gateOpen = false
  const serviceDeps = { ...deps, mayPass: () => gateOpen }

  return {
    open(fn) {
      const service = services.get(fn.name)
      if (service) return service.update(fn)
      const opened = createFdService(fn, serviceDeps)
      services.set(fn.name, opened)
      opened.setAccepting(gateOpen)
    },
    prove: (fn, signal) => proveFunction(fn, deps, signal),
    drained: async (name) => services.get(name)?.drained(),
    async close(name) {
      const service = services.get(name)
      if (!service) return
      services.delete(name)
      await service.close()
      deps.metrics.forget(name)
    },
    setGate(open) {
      gateOpen = open
      for (const service of services.values()) service.setAccepting(open)
    },
    stats: (name) => services.get(name)?.stats(),
    served: () => new Map([...services].map(([name, service]) => [name, service.current])),
    async recover(found) {
      const kept = new Set<string>()
      for (const container of found) {
        const adopted = await adoptInstance(container, deps)
        const service =
          adopted && [...services.values()].find(({ current }) => current.name === adopted.functionName)
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
      for (const service of services.values()) service.setAccepting(false)
      const closing = Promise.all([...services.values()].map((service) => service.close()))
      const { promise: graceOver, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, graceMs)
      await Promise.race([closing, graceOver])
      clearTimeout(timer)
    },
  }
}
