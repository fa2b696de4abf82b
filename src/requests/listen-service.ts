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
import { acceptTcp, resetTcp } from '../host/native/sockets.ts'
import type { Freezer } from '../runtime/freezer.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { toFaasError } from '../values/errors.ts'
import { type Attachment, type Instance, type InstanceDeps, startInstance } from './instance.ts'
import type { ListenerGroup, Listeners } from './listeners.ts'
import { createMembers, type MembersDeps } from './members.ts'
import type { Service } from './service.ts'
import type { Traffic, TrafficWatch } from './traffic.ts'

/** After a start that failed: doubled each time, so that a crash loop costs little. */
const firstBackoffMs = 200
const longestBackoffMs = 30_000
/** How many looks in a row must find a queue before another instance is started. */
const queuedLooks = 2
/** CPU time within {@link cpuWindowMs} that says that an instance works without a caller, a queue's consumer for one. */
const busyCpuMs = 10
const cpuWindowMs = 100

export interface ListenServiceDeps extends InstanceDeps, MembersDeps {
  readonly metrics: Metrics
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
  let backoffMs = firstBackoffMs
  let backoff: NodeJS.Timeout | undefined
  let starting = 0
  let queuedFor = 0
  let quietSinceMs: number | undefined
  let awake: Disposable | undefined
  let endTimer: NodeJS.Timeout | undefined
  /** One change of state after another: freezing, thawing and ending must not overtake each other. */
  let turn: Promise<void> = Promise.resolve()
  const watched = new Set<number>()
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
  const wake = (): void => {
    unwatchListeners()
    clearTimeout(endTimer)
    stayAwake()
    if (members.isFrozen()) void inTurn('thaw', () => members.thaw())
    else if (members.active() === 0 && starting === 0) void start(current, listeners)
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
      void instance.ended.then(() => resolve(false))
      if (!(await listening)) {
        fail(`an instance did not listen on port ${[...missing].join(' and ')}`)
        instance.kill()
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
    const options = { directory, listeners: given.byTarget, onListening, onTrouble }
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
    if (members.active() > 1 || closed) return
    unwatchListeners()
    for (const listener of listeners.byTarget.values()) {
      for (let taken = acceptTcp(listener); taken; taken = acceptTcp(listener)) {
        counts.failed++
        deps.metrics.connectionEnded(fn.name, 'failed')
        resetTcp(taken.fd)
      }
    }
    clearTimeout(backoff)
    backoff = setTimeout(() => {
      backoff = undefined
      if (members.active() === 0 && starting === 0) goToSleep()
    }, backoffMs)
    backoffMs = Math.min(backoffMs * 2, longestBackoffMs)
  }

  // --- sleeping and growing -------------------------------------------------------------------------------------

  const isQuiet = ({ connections, queued }: Traffic): boolean => connections === 0 && queued === 0
  const look = (): Traffic =>
    traffic.look({ address: fn.address, ports: current.ports.map(({ port }) => port) })

  const onTraffic = (seen: Traffic): void => {
    queuedFor = seen.queued > 0 ? queuedFor + 1 : 0
    if (queuedFor >= queuedLooks && canGrow()) {
      queuedFor = 0
      void start(current, listeners)
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

  const endIdle = async (): Promise<void> => {
    if (!members.isFrozen() || !isQuiet(look())) return
    members.endIdle(current.options.minInstances, current.stopSignal)
  }

  // --- versions -------------------------------------------------------------------------------------------------

  /** The new version takes over at the moment at which it listens; until then the old one serves. */
  const replace = async (version: ServedFunction): Promise<void> => {
    await members.thaw()
    const old = listeners
    const next = group.open(version.ports)
    unwatchListeners()
    if (!(await start(version, next))) {
      log.warn(fn.name, 'the new version is started again by the next connection')
      next.listen()
    }
    listeners = next
    // What waits in the old queue and is not taken by an old instance moves on when the last of them has ended.
    old.close()
    members.retireOthers(version)
    void members.endedOthers(version).then(() => old.gone())
    if (members.active() === 0) goToSleep()
    else stayAwake()
  }

  /** While the last instances finish, who calls is refused at once: by a set that takes the connections from them. */
  const refuseConnections = (): Disposable => {
    const refusing = group.open(current.ports)
    refusing.listen()
    const fds = [...refusing.byTarget.values()]
    for (const fd of fds) {
      poller.watch(fd, () => {
        for (let taken = acceptTcp(fd); taken; taken = acceptTcp(fd)) resetTcp(taken.fd)
      })
    }
    return {
      [Symbol.dispose]() {
        for (const fd of fds) poller.unwatch(fd)
        refusing.gone()
      },
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
      if (members.active() + starting > 0 && replaced.versionId !== next.versionId) {
        void inTurn('replace', () => replace(next))
      }
    },
    inPlace: () => turn,
    setAccepting(wanted) {
      accepting = wanted
      if (!wanted) unwatchListeners()
      else if (members.active() === 0 || members.isFrozen()) watchListeners()
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
      await members.thaw()
      using _refusing = group.isNewest(listeners) ? refuseConnections() : undefined
      listeners.close()
      members.retireOthers(undefined)
      await members.endedOthers(undefined)
      listeners.gone()
    },
    stats: () => ({
      instances: members.size(),
      standbys: 0,
      ids: members.ids(),
      frozen: members.isFrozen(),
      waiting: 0,
      ...counts,
      failure,
    }),
  }
}
