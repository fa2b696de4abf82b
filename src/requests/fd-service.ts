/**
 * Serves one function of the `fd` contract: takes connections from its listener and passes each to an instance that
 * waits for one. Where none waits, one is started for it; and instances are started ahead of connections
 * (standby-size.ts). The daemon never reads a byte of a connection.
 *
 * Which instance gets which connection is open until the moment of passing: the one that has waited longest goes to
 * whichever instance is there. An instance that cannot be started fails the oldest connection for which then none is
 * on its way. While sockets may not be passed (`setAccepting`), what was taken waits, and nothing is started.
 */
import type { ServedFunction } from '../functions/function.ts'
import { acceptTcp } from '../host/native/sockets.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { toFaasError } from '../values/errors.ts'
import { createConnections } from './connections.ts'
import { createFdInstances, type FdInstancesDeps, type Loss } from './fd-instances.ts'
import type { ListenerGroup } from './listeners.ts'
import type { Service } from './service.ts'
import { createStandbyKeeper } from './standby-keeper.ts'

/** Connections taken from the kernel that wait for an instance; further ones wait in the kernel's accept queue. */
const maxWaiting = 256
/** After the process or the system ran out of descriptors: pause instead of spinning on a readable listener. */
const acceptPauseMs = 200

export interface FdServiceDeps extends FdInstancesDeps {
  readonly metrics: Metrics
  /** Whether sockets may be passed to functions now: the packet filter's rule is in place. */
  readonly mayPass: () => boolean
}

export function createFdService(fn: ServedFunction, group: ListenerGroup, deps: FdServiceDeps): Service {
  let current = fn
  let closed = false
  let accepting = false
  let pause: NodeJS.Timeout | undefined
  let failure: string | undefined
  const listeners = group.open(fn.ports)
  listeners.listen()
  const [listener = -1] = listeners.byTarget.values()
  const connections = createConnections(fn.name, deps.metrics)

  const isPassing = (): boolean => accepting && !closed && deps.mayPass()

  const onLost = ({ why, isFresh, livedMs }: Loss): void => {
    failure = why
    deps.logs.append({ time: new Date(), function: fn.name, instance: '', stream: 'platform', text: why })
    const onTheirWay = instances.starting() + instances.waiting()
    if (isFresh && connections.waiting > onTheirWay) connections.endOldest('failed')
    keeper.onLost(livedMs)
  }
  const instances = createFdInstances(fn, deps, {
    onWaiting(startedMs) {
      if (startedMs !== undefined) deps.metrics.instanceReady(fn.name, startedMs / 1000)
      keeper.onWaiting(startedMs)
      settle()
    },
    onLost,
    onEnded: () => settle(),
  })
  const keeper = createStandbyKeeper({
    instances,
    current: () => current,
    calling: () => connections.waiting,
    isActive: isPassing,
  })

  /** Brings together what waits on either side, and starts what is missing. */
  const settle = (): void => {
    if (isPassing()) {
      for (let fd = connections.oldest(); fd !== undefined; fd = connections.oldest()) {
        if (instances.waiting() === 0) break
        if (!instances.pass(fd)) continue
        failure = undefined
        connections.endOldest('passed')
        keeper.onPassed()
      }
      for (let lacking = connections.waiting - instances.starting(); lacking > 0; lacking--) {
        if (instances.size() >= current.options.maxInstances) break
        instances.start(current)
      }
      keeper.replenish()
    }
    connections.refuseOverdue(instances.starting())
    if (accepting && pause === undefined) watch()
  }

  const take = (fd: number): void => {
    connections.add(fd)
    keeper.onArrival()
    settle()
    connections.limitLast(current.options.timeouts.queueMs, settle)
  }

  let watched = false
  const watch = (): void => {
    if (watched || closed || connections.waiting >= maxWaiting) return
    watched = true
    deps.poller.watch(listener, onReadable)
  }
  const unwatch = (): void => {
    if (watched) deps.poller.unwatch(listener)
    watched = false
  }
  const onReadable = (): void => {
    try {
      while (connections.waiting < maxWaiting) {
        const accepted = acceptTcp(listener)
        if (!accepted) return
        take(accepted.fd)
      }
      unwatch()
    } catch (error) {
      deps.log.error(fn.name, `no connection could be accepted for now: ${toFaasError(error).message}`)
      unwatch()
      pause = setTimeout(() => {
        pause = undefined
        if (accepting) watch()
      }, acceptPauseMs)
    }
  }

  return {
    get current() {
      return current
    },
    update(next) {
      current = next
      failure = undefined
      instances.retireOthers(next)
      settle()
    },
    inPlace: async () => {},
    setAccepting(wanted) {
      accepting = wanted
      if (!wanted) unwatch()
      settle()
    },
    adopt(instance) {
      instances.adopt(instance, instance.versionId === current.versionId ? current : undefined)
    },
    drained: () => instances.endedOthers(current),
    async close() {
      closed = true
      accepting = false
      clearTimeout(pause)
      keeper.stop()
      unwatch()
      listeners.gone()
      connections.refuseAll()
      instances.retireOthers(undefined)
      await instances.endedOthers(undefined)
    },
    stats: () => ({
      instances: instances.size(),
      standbys: instances.waiting(),
      ids: instances.ids(),
      relayed: false,
      frozen: false,
      waiting: connections.waiting,
      ...connections.counts,
      failure,
    }),
  }
}
