/**
 * Serves one function of the `listen` contract: keeps its listeners, wakes it when one becomes readable, and lets it
 * sleep when the kernel says that nobody uses it. Once an instance listens, callers and instances have the listener
 * to themselves: nothing here is between them.
 *
 *   cold ── a connection arrives ──▶ starting ──▶ running ◀── a connection arrives ── paused
 *     ▲                                              │  no connection for pauseMs ──▶ │ (frozen)
 *     └───────────── no connection for idleMs ◀──────┴────────────────────────────────┘
 *
 * A connection that arrives while nobody accepts waits in the kernel's queue and is there at the first accept.
 */
import { superviseInstance } from '../contracts/listen.ts'
import type { ServedFunction } from '../functions/function.ts'
import { acceptTcp, resetTcp } from '../host/native/sockets.ts'
import type { Freezer } from '../runtime/freezer.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Digest } from '../values/digest.ts'
import { toFaasError } from '../values/errors.ts'
import { type Attachment, type Instance, type InstanceDeps, startInstance } from './instance.ts'
import type { Listeners } from './listeners.ts'
import type { Service } from './service.ts'
import type { TrafficWatch } from './traffic.ts'

/** After a start that failed: doubled each time, so that a crash loop costs little. */
const firstBackoffMs = 200
const longestBackoffMs = 30_000
/** How many looks in a row must find a queue before another instance is started. */
const queuedLooks = 2
/** How long an instance has after its stop signal. */
const graceMs = 10_000

export interface ListenServiceDeps extends InstanceDeps {
  readonly metrics: Metrics
  readonly traffic: TrafficWatch
  readonly freezer: Freezer
  readonly usageOf: (id: string) => Promise<{ readonly cpuMs: number }>
}

interface Member {
  readonly version: Digest
  readonly instance: Instance
  readonly ended: Promise<void>
}

export function createListenService(
  fn: ServedFunction,
  listeners: Listeners,
  deps: ListenServiceDeps,
): Service {
  const { poller, traffic, freezer, log } = deps
  let current = fn
  let closed = false
  let accepting = false
  let failure: string | undefined
  let backoffMs = firstBackoffMs
  let backoff: NodeJS.Timeout | undefined
  let starting = 0
  let frozen = false
  let queuedFor = 0
  let quietSinceMs: number | undefined
  let awake: Disposable | undefined
  /** One change of state after another: freezing, thawing and ending must not overtake each other. */
  let turn: Promise<void> = Promise.resolve()
  const members = new Set<Member>()
  const ending = new Set<Member>()
  const counts = { accepted: 0, passed: 0, refused: 0, failed: 0 }
  const watched = new Set<number>()

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
    quietSinceMs = undefined
    stayAwake()
    if (frozen) void inTurn('thaw', thaw)
    else if (members.size === 0 && starting === 0) void start()
  }
  const stayAwake = (): void => {
    const ports = current.ports.map(({ port }) => port)
    awake ??= traffic.add({ address: fn.address, ports, onTraffic })
  }
  const goToSleep = (): void => {
    awake?.[Symbol.dispose]()
    awake = undefined
    watchListeners()
  }

  const thaw = async (): Promise<void> => {
    frozen = false
    await Promise.all([...members].map(({ instance }) => freezer.thaw(instance.id)))
  }

  // --- instances ------------------------------------------------------------------------------------------------

  /** Starts an instance of the current version; resolves when it listens or has failed. Never rejects. */
  const start = async (): Promise<void> => {
    const version = current
    const startedMs = performance.now()
    const { promise: listening, resolve } = Promise.withResolvers<boolean>()
    const missing = new Set(version.ports.map(({ target }) => target))
    const onListening = (port: number): void => {
      missing.delete(port)
      if (missing.size === 0) resolve(true)
    }
    starting++
    const timer = setTimeout(() => resolve(false), version.options.timeouts.connectMs)
    try {
      const instance = await startInstance(version, (directory) => attach(directory, onListening), deps)
      const member = join(instance, version.image)
      void instance.ended.then(() => resolve(false))
      if (await listening) {
        failure = undefined
        backoffMs = firstBackoffMs
        deps.metrics.instanceReady(fn.name, (performance.now() - startedMs) / 1000)
        // The old version has accepted until now; whoever comes next meets the new one.
        for (const old of [...members]) if (old.version !== current.image) void end(old)
      } else {
        fail(`an instance did not listen on port ${[...missing].join(' and ')}`)
        instance.kill()
        await member.ended
      }
    } catch (error) {
      fail(toFaasError(error).message)
    } finally {
      clearTimeout(timer)
      starting--
    }
  }

  const attach = (directory: string, onListening: (port: number) => void): Attachment => {
    const onTrouble = (message: string): void => log.warn(fn.name, message)
    const supervision = superviseInstance(
      { directory, listeners: listeners.byTarget, onListening, onTrouble },
      poller,
    )
    return {
      mounts: [],
      seccompListener: supervision.path,
      [Symbol.dispose]: () => supervision[Symbol.dispose](),
    }
  }

  const join = (instance: Instance, version: Digest): Member => {
    const leave = async (): Promise<void> => {
      await instance.ended
      members.delete(member)
      ending.delete(member)
      countInstances()
      if (members.size === 0 && starting === 0 && !closed) goToSleep()
    }
    const member: Member = { version, instance, ended: leave() }
    members.add(member)
    countInstances()
    return member
  }
  const countInstances = (): void => deps.metrics.instances(fn.name, members.size + ending.size)

  /** Callers that wait for an instance which cannot be started are told at once, and the next ones after a pause. */
  const fail = (why: string): void => {
    failure = why
    log.error(fn.name, why)
    deps.logs.append({ time: new Date(), function: fn.name, instance: '', stream: 'platform', text: why })
    if (members.size > 0 || closed) return
    for (const listener of listeners.byTarget.values()) {
      for (let taken = acceptTcp(listener); taken; taken = acceptTcp(listener)) {
        counts.failed++
        deps.metrics.connectionEnded(fn.name, 'failed')
        resetTcp(taken.fd)
      }
    }
    backoff = setTimeout(() => {
      backoff = undefined
      goToSleep()
    }, backoffMs)
    backoffMs = Math.min(backoffMs * 2, longestBackoffMs)
  }

  /** Asks an instance to end, and ends it when it has not after {@link graceMs}. */
  const end = async (member: Member): Promise<void> => {
    if (!members.delete(member)) return
    ending.add(member)
    const { instance } = member
    instance.signal(current.stopSignal)
    // A signal that was sent to a frozen process is the first thing it sees.
    if (frozen) await freezer.thaw(instance.id).catch(() => {})
    const timer = setTimeout(() => instance.kill(), graceMs)
    await member.ended
    clearTimeout(timer)
  }

  // --- sleeping and growing -------------------------------------------------------------------------------------

  const onTraffic = ({ connections, queued }: { connections: number; queued: number }): void => {
    queuedFor = queued > 0 ? queuedFor + 1 : 0
    if (queuedFor >= queuedLooks && canGrow()) {
      queuedFor = 0
      void start()
    }
    const now = performance.now()
    if (connections > 0 || queued > 0 || starting > 0) quietSinceMs = undefined
    else quietSinceMs ??= now
    if (quietSinceMs === undefined || frozen) return
    if (members.size > 0 && now - quietSinceMs > current.options.timeouts.pauseMs)
      void inTurn('pause', pauseAll)
  }
  const canGrow = (): boolean =>
    !frozen &&
    starting === 0 &&
    !closed &&
    backoff === undefined &&
    members.size < current.options.maxInstances

  const isBusy = (): boolean => {
    const { connections, queued } = traffic.look({
      address: fn.address,
      ports: current.ports.map(({ port }) => port),
    })
    return connections > 0 || queued > 0
  }

  const pauseAll = async (): Promise<void> => {
    if (frozen || members.size === 0 || starting > 0 || (await usesCpu())) return
    await Promise.all([...members].map(({ instance }) => freezer.freeze(instance.id)))
    frozen = true
    // A connection that came while we froze was taken by a server that cannot answer now.
    if (isBusy()) return thaw()
    awake?.[Symbol.dispose]()
    awake = undefined
    watchListeners()
    setTimeout(() => void inTurn('sleep', endIdle), current.options.timeouts.idleMs).unref()
  }

  /** A server that works without a caller, a queue's consumer for one, is not idle. */
  const usesCpu = async (): Promise<boolean> => {
    const before = await totalCpuMs()
    await new Promise((resolve) => setTimeout(resolve, 50))
    return (await totalCpuMs()) - before > 10
  }
  const totalCpuMs = async (): Promise<number> => {
    const usages = await Promise.all([...members].map(({ instance }) => deps.usageOf(instance.id)))
    return usages.reduce((sum, { cpuMs }) => sum + cpuMs, 0)
  }

  const endIdle = async (): Promise<void> => {
    if (!frozen || isBusy()) return
    const surplus = [...members].slice(current.options.minInstances)
    await Promise.all(surplus.map(end))
    if (members.size === 0) frozen = false
  }

  return {
    get current() {
      return current
    },
    update(next) {
      current = next
      failure = undefined
      // While the old version runs, the new one takes over when it listens; else the next connection starts it.
      if (members.size > 0) void inTurn('thaw', thaw).then(start)
    },
    setAccepting(wanted) {
      accepting = wanted
      if (!wanted) unwatchListeners()
      else if (members.size === 0 || frozen) watchListeners()
    },
    adopt(instance) {
      join(instance, current.image)
      stayAwake()
    },
    async drained() {
      while ([...members, ...ending].some(({ version }) => version !== current.image)) {
        const old = [...members, ...ending].filter(({ version }) => version !== current.image)
        await Promise.race(old.map(({ ended }) => ended))
      }
    },
    async close() {
      closed = true
      accepting = false
      clearTimeout(backoff)
      unwatchListeners()
      awake?.[Symbol.dispose]()
      awake = undefined
      await turn
      await Promise.all([...members].map(end))
      await Promise.all([...ending].map(({ ended }) => ended))
    },
    stats: () => ({
      instances: members.size + ending.size,
      ids: [...members, ...ending].map(({ instance }) => instance.id),
      frozen,
      waiting: 0,
      ...counts,
      failure,
    }),
  }
}
