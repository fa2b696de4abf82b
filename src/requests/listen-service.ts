/**
 * Serves one function of the `listen` contract: keeps its listeners, wakes it when one becomes readable, and lets it
 * sleep when the kernel says that nobody uses it. Once an instance listens, callers and instances have the listener
 * to themselves: nothing here is between them.
 *
 *   cold ── a connection arrives ──▶ starting ──▶ running ◀── a connection arrives ── paused
 *     ▲                                              │  no connection for pauseMs ──▶ │ (frozen)
 *     └───────────────────────── no connection for idleMs more ◀──────────────────────┘
 *
 * A connection that arrives while nobody accepts waits in the kernel's queue and is there at the first accept.
 */
import { superviseInstance } from '../contracts/listen.ts'
import { idleMsOf, type ServedFunction } from '../functions/function.ts'
import type { Freezer } from '../runtime/freezer.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { toFaasError } from '../values/errors.ts'
import { type Attachment, type Instance, type InstanceDeps, startInstance } from './instance.ts'
import type { ListenerGroup, Listeners } from './listeners.ts'
import { createMembers, type MembersDeps } from './members.ts'
import { refuseConnections, refuseQueued } from './refuse.ts'
import type { Service } from './service.ts'
import type { Traffic, TrafficWatch } from './traffic.ts'

/** After a start that failed: doubled each time, so that a crash loop costs little. */
const firstBackoffMs = 200
const longestBackoffMs = 30_000
/** How many looks in a row must find a queue before another instance is started. */
const queuedLooks = 2
const EPOLLHUP = 0x10
/** CPU time within {@link cpuWindowMs} that says that an instance works without a caller, a queue's consumer for one. */
const busyCpuMs = 10
const cpuWindowMs = 100

export interface ListenServiceDeps extends InstanceDeps, MembersDeps {
  readonly metrics: Metrics
  /** Whether sockets may be given to functions now: the packet filter's rule is in place. */
  readonly mayPass: () => boolean
  readonly traffic: TrafficWatch
  readonly freezer: Freezer
  readonly usageOf: (id: string) => Promise<{ readonly cpuMs: number }>
}

/** `adopted` are listeners that instances of an earlier daemon held, by the address's port; they become ours. */
export function createListenService(
  fn: ServedFunction,
  group: ListenerGroup,
  deps: ListenServiceDeps,
  adopted?: ReadonlyMap<number, number>,
): Service {
  const { poller, traffic, log } = deps
  let current = fn
  let listeners = group.open(fn.ports, adopted)
  listeners.listen()
  let closed = false
  let accepting = false
  let failure: string | undefined
  let relayed = false
  let backoffMs = firstBackoffMs
  let backoff: NodeJS.Timeout | undefined
  let starting = 0
  let queuedFor = 0
  let deafFor = 0
  let quietSinceMs: number | undefined
  let awake: Disposable | undefined
  let endTimer: NodeJS.Timeout | undefined
  /** One change of state after another: freezing, thawing and ending must not overtake each other. */
  let turn: Promise<void> = Promise.resolve()
  const watched = new Set<number>()
  const starts = new Set<Promise<void>>()
  const counts = { accepted: 0, passed: 0, refused: 0, failed: 0 }
  const members = createMembers(deps, fn, () => {
    deps.metrics.instances(fn.name, members.size())
    if (members.active() === 0 && starting === 0) goToSleep()
  })

  const inTurn = (what: string, work: () => Promise<void>): Promise<void> => {
    turn = turn.then(work).catch((error: unknown) => {
      log.error(fn.name, `${what}: ${toFaasError(error).message}`)
    })
    return turn
  }

  // --- waking ---------------------------------------------------------------------------------------------------

  const watchListeners = (): void => {
    if (closed || !accepting || backoff !== undefined) return
    for (const listener of listeners.byTarget.values()) {
      if (watched.has(listener)) continue
      watched.add(listener)
      poller.watch(listener, wake)
    }
  }
  const unwatchListeners = (): void => {
    for (const listener of watched) poller.unwatch(listener)
    watched.clear()
  }
  const wake = (events: number): void => {
    unwatchListeners()
    clearTimeout(endTimer)
    if ((events & EPOLLHUP) !== 0 && members.active() + starting === 0) {
      return fail('an instance has shut its listener down, and is gone')
    }
    stayAwake()
    if (members.isFrozen()) void inTurn('thaw', () => members.thaw())
    else if (members.active() === 0 && starting === 0) begin(current, listeners)
  }
  const stayAwake = (): void => {
    quietSinceMs = undefined
    const ports = current.ports.map(({ port }) => port)
    awake ??= traffic.add({ address: fn.address, ports, onTraffic })
  }
  const goToSleep = (): void => {
    awake?.[Symbol.dispose]()
    awake = undefined
    watchListeners()
  }

  // --- instances ------------------------------------------------------------------------------------------------

  const begin = (version: ServedFunction, given: Listeners): void => {
    const mine = start(version, given).then(() => void starts.delete(mine))
    starts.add(mine)
  }

  /** Starts an instance with a set of listeners; true when it listens on all of them. Never rejects. */
  const start = async (version: ServedFunction, given: Listeners): Promise<boolean> => {
    const startedMs = performance.now()
    const { promise: listening, resolve } = Promise.withResolvers<boolean>()
    const missing = new Set(given.byTarget.keys())
    const onListening = (target: number): void => {
      given.listen(target)
      missing.delete(target)
      if (missing.size === 0) resolve(true)
    }
    starting++
    const timer = setTimeout(() => resolve(false), version.options.timeouts.connectMs)
    let instance: Instance | undefined
    try {
      const attach = (directory: string): Attachment => supervise(directory, given, onListening)
      instance = await startInstance(version, attach, deps)
      members.join(instance)
      if (closed) {
        instance.kill()
        return false
      }
      void instance.ended.then(() => resolve(false))
      if (!(await listening)) {
        const ports = [...missing].join(' and ')
        instance.kill()
        await instance.ended
        fail(`an instance did not listen on port ${ports}`)
        return false
      }
      failure = undefined
      backoffMs = firstBackoffMs
      deps.metrics.instanceReady(fn.name, (performance.now() - startedMs) / 1000)
      return true
    } catch (error) {
      fail(toFaasError(error).message)
      return false
    } finally {
      clearTimeout(timer)
      starting--
      if (members.active() === 0 && starting === 0) goToSleep()
    }
  }

  const supervise = (
    directory: string,
    given: Listeners,
    onListening: (target: number) => void,
  ): Attachment => {
    const onTrouble = (message: string): void => log.warn(fn.name, message)
    const onRelay = (): void => {
      relayed = true
    }
    const { mayPass } = deps
    const options = { directory, listeners: given.byTarget, onListening, onRelay, onTrouble, mayPass }
    const supervision = superviseInstance(options, poller)
    return {
      mounts: [],
      seccompListener: supervision.path,
      [Symbol.dispose]: () => supervision[Symbol.dispose](),
    }
  }

  /** Callers that wait for an instance which cannot be started are told at once, and the next ones after a pause. */
  const fail = (why: string): void => {
    failure = why
    log.error(fn.name, why)
    deps.logs.append({ time: new Date(), function: fn.name, instance: '', stream: 'platform', text: why })
    if (members.active() > 0 || closed) return
    try {
      renewListeners()
      for (const listener of listeners.byTarget.values()) {
        for (let refused = refuseQueued(listener); refused > 0; refused--) {
          counts.failed++
          deps.metrics.connectionEnded(fn.name, 'failed')
        }
      }
    } catch (error) {
      log.error(fn.name, `who waits cannot be told: ${toFaasError(error).message}`)
    }
    clearTimeout(backoff)
    backoff = setTimeout(() => {
      backoff = undefined
      if (members.active() === 0 && starting === 0) goToSleep()
    }, backoffMs)
    backoffMs = Math.min(backoffMs * 2, longestBackoffMs)
  }

  /**
   * Sockets that no instance has ever had, in place of ours. What an instance was given is its own to shut down or to
   * make blocking, so nothing is ever accepted on it here. What waits in the queue moves to the new ones.
   */
  const renewListeners = (): void => {
    unwatchListeners()
    const old = listeners
    listeners = group.open(current.ports)
    listeners.listen()
    old.gone()
  }

  // --- sleeping and growing -------------------------------------------------------------------------------------

  const isQuiet = ({ connections, queued }: Traffic): boolean => connections === 0 && queued === 0
  const look = (): Traffic =>
    traffic.look({ address: fn.address, ports: current.ports.map(({ port }) => port) })

  const onTraffic = (seen: Traffic): void => {
    queuedFor = seen.queued > 0 ? queuedFor + 1 : 0
    if (queuedFor >= queuedLooks && canGrow()) {
      queuedFor = 0
      begin(current, listeners)
    }
    deafFor = seen.listening === 0 && members.active() > 0 && starting === 0 ? deafFor + 1 : 0
    if (deafFor >= queuedLooks) {
      deafFor = 0
      void inTurn('heal', heal)
    }
    if (!isQuiet(seen) || starting > 0) quietSinceMs = undefined
    else quietSinceMs ??= performance.now()
    if (quietSinceMs === undefined || members.isFrozen() || members.active() === 0) return
    if (performance.now() - quietSinceMs < current.options.timeouts.pauseMs) return
    quietSinceMs = undefined
    void inTurn('pause', pause)
  }
  const canGrow = (): boolean =>
    !members.isFrozen() &&
    starting === 0 &&
    !closed &&
    backoff === undefined &&
    accepting &&
    members.active() < current.options.maxInstances

  const pause = async (): Promise<void> => {
    if (closed || starting > 0 || members.isFrozen() || (await usesCpu())) return
    await members.freeze()
    // A connection that came while we froze was taken by a server that cannot answer now.
    if (!isQuiet(look())) return members.thaw()
    goToSleep()
    endTimer = setTimeout(() => void inTurn('sleep', endIdle), idleMsOf(current))
  }

  const usesCpu = async (): Promise<boolean> => {
    const before = await members.cpuMs(deps.usageOf)
    await new Promise((resolve) => setTimeout(resolve, cpuWindowMs))
    return (await members.cpuMs(deps.usageOf)) - before > busyCpuMs
  }

  /** An instance has shut down the sockets that all of them share: they are replaced, and so are the instances. */
  const heal = async (): Promise<void> => {
    if (closed || look().listening > 0) return
    log.warn(fn.name, 'an instance has shut its listener down: it is replaced')
    const deaf = listeners
    listeners = group.open(current.ports)
    listeners.listen()
    deaf.close()
    members.retireOthers(undefined)
    void members.endedOthers(undefined).then(() => deaf.gone())
    goToSleep()
  }

  const endIdle = async (): Promise<void> => {
    if (!members.isFrozen() || !isQuiet(look())) return
    members.endIdle(current.options.minInstances, current.stopSignal)
  }

  /** The gate is open again: who has connections goes on, the others wait for one. */
  const resume = async (): Promise<void> => {
    if (!accepting) return
    if (members.isFrozen() && !isQuiet(look())) {
      await members.thaw()
      stayAwake()
    } else if (members.active() === 0 || members.isFrozen()) watchListeners()
  }

  // --- versions -------------------------------------------------------------------------------------------------

  /** The new version takes over at the moment at which it listens; until then the old one serves. */
  const replace = async (version: ServedFunction): Promise<void> => {
    await members.thaw()
    let next = group.open(version.ports)
    unwatchListeners()
    if (!(await start(version, next))) {
      log.warn(fn.name, 'the new version is started again by the next connection')
      next.gone()
      next = group.open(version.ports)
      next.listen()
    }
    const old = listeners
    listeners = next
    unwatchListeners()
    // What waits in the old queue and is not taken by an old instance moves on when the last of them has ended.
    old.close()
    members.retireOthers(version)
    void members.endedOthers(version).then(() => old.gone())
    if (members.active() === 0) goToSleep()
    else stayAwake()
  }

  /** While the last instances finish, who calls is refused at once. */
  const refuseMeanwhile = (): Disposable | undefined => {
    if (!group.isNewest(listeners)) return undefined
    try {
      return refuseConnections(group, current.ports, poller)
    } catch (error) {
      log.warn(fn.name, `who calls while it ends is not refused: ${toFaasError(error).message}`)
      return undefined
    }
  }

  return {
    get current() {
      return current
    },
    update(next) {
      const replaced = current
      current = next
      failure = undefined
      relayed = false
      if (members.active() + starting > 0 && replaced.versionId !== next.versionId) {
        void inTurn('replace', () => replace(next))
      }
    },
    inPlace: () => turn,
    setAccepting(wanted) {
      accepting = wanted
      if (wanted) void inTurn('open', resume)
      else {
        unwatchListeners()
        // They accept by themselves: without the rule nobody may have a socket to go on with.
        if (members.active() > 0) void inTurn('shut', () => members.freeze())
      }
    },
    adopt(instance) {
      members.join(instance)
      if (instance.versionId !== current.versionId) members.retireOthers(current)
      // It may have been frozen when the daemon died.
      void inTurn('thaw', () => members.thaw())
      unwatchListeners()
      stayAwake()
    },
    async drained() {
      await turn
      await members.endedOthers(current)
    },
    async close() {
      closed = true
      accepting = false
      clearTimeout(backoff)
      clearTimeout(endTimer)
      unwatchListeners()
      awake?.[Symbol.dispose]()
      awake = undefined
      await turn
      await Promise.all(starts)
      // Whatever fails here must not let an instance live on.
      await members.thaw().catch((error: unknown) => log.error(fn.name, toFaasError(error).message))
      using _refusing = refuseMeanwhile()
      listeners.close()
      members.retireOthers(undefined)
      await members.endedOthers(undefined)
      listeners.gone()
    },
    stats: () => ({
      instances: members.size(),
      standbys: 0,
      ids: members.ids(),
      relayed,
      frozen: members.isFrozen(),
      waiting: 0,
      ...counts,
      failure,
    }),
  }
}
