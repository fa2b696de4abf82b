/**
 * The instances of one function of the `fd` contract:
 *
 *   starting ── connects to its control socket ──▶ waiting ── gets a connection ──▶ serving ──▶ ended
 *                                                     ▲──────── asks for the next ─────┘ (only with `reuse`)
 *
 * An instance is *lost* when it ends, or has to be ended, without having got what it was started for. One that serves
 * has the function's total time from each hand-over. With `reuse` the kernel is asked once in a while, since an
 * instance may say that it has answered while it goes on holding the connection.
 */
import { openControlSocket, type WaitingHandler } from '../contracts/fd.ts'
import type { ServedFunction } from '../functions/function.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { toFaasError } from '../values/errors.ts'
import { heldConnections } from './holdings.ts'
import { type Instance, type InstanceDeps, startInstance } from './instance.ts'

export interface FdInstancesDeps extends InstanceDeps {
  readonly metrics: Metrics
  readonly listProcesses: (id: string) => Promise<readonly number[]>
}

export interface FdInstancesEvents {
  /** An instance waits for a connection; `startedMs` ago it was started, undefined where it has served before. */
  onWaiting(startedMs: number | undefined): void
  /** An instance could not be used. */
  onLost(loss: Loss): void
  /** Nothing is left of an instance: another may take its place. */
  onEnded(): void
}

export interface Loss {
  readonly why: string
  /** It never waited, so that what it was started for has not been tried yet. */
  readonly isFresh: boolean
  readonly livedMs: number
}

export interface FdInstances {
  /** All of which anything is left. */
  size(): number
  starting(): number
  waiting(): number
  ids(): readonly string[]
  /** Starts one. Never throws: a failure is a loss. */
  start(version: ServedFunction): void
  /** Passes a duplicate of `connection` to the one that has waited shortest; when that is lost instead, false. */
  pass(connection: number): boolean
  /** Takes over one of an earlier daemon, of `version` where that is known. */
  adopt(instance: Instance, version: ServedFunction | undefined): void
  /** Ends all that wait but `keep`, those that have waited longest first. */
  endWaiting(keep: number): void
  /** Ends those of other versions as soon as they hold no connection: of all versions when it is undefined. */
  retireOthers(version: ServedFunction | undefined): void
  /** Resolves when all of other versions that exist now have ended. */
  endedOthers(version: ServedFunction | undefined): Promise<void>
}

interface Member {
  readonly version: ServedFunction | undefined
  readonly startedMs: number
  state: 'starting' | 'waiting' | 'serving' | 'ending'
  isFresh: boolean
  isRetired: boolean
  instance: Instance | undefined
  handler: WaitingHandler | undefined
  /** For the instance to connect, and then for each connection that it holds. */
  timer: NodeJS.Timeout | undefined
  /** With `reuse`: until the kernel is asked what is held; and what it said the last time. */
  audit: NodeJS.Timeout | undefined
  heldBefore: ReadonlySet<number>
  ended: Promise<void>
}

const newMember = (version: ServedFunction | undefined, state: Member['state']): Member => ({
  version,
  startedMs: performance.now(),
  state,
  isFresh: true,
  isRetired: false,
  instance: undefined,
  handler: undefined,
  timer: undefined,
  audit: undefined,
  heldBefore: new Set(),
  ended: Promise.resolve(),
})

/** How long an instance that is asked to end has until it is ended: its time is over already. */
const stopGraceMs = 1_000

export function createFdInstances(
  fn: ServedFunction,
  deps: FdInstancesDeps,
  { onWaiting, onLost, onEnded }: FdInstancesEvents,
): FdInstances {
  const members = new Set<Member>()
  /** In the order in which they began to wait. */
  const waiting: Member[] = []
  let starting = 0

  const warn = ({ instance }: Member, what: string): void =>
    deps.log.warn(`${fn.name}/${instance?.id ?? 'starting'}`, what)

  const moveTo = (member: Member, state: Member['state']): void => {
    if (member.state === 'starting') starting--
    const at = member.state === 'waiting' ? waiting.lastIndexOf(member) : -1
    if (at >= 0) waiting.splice(at, 1)
    member.state = state
    if (state === 'waiting') waiting.push(member)
  }

  /** One that serves gets its stop signal first; the others hold nothing that they could bring to an end. */
  const end = (member: Member): void => {
    const { instance, state } = member
    clearTimeout(member.timer)
    moveTo(member, 'ending')
    member.handler?.[Symbol.dispose]()
    if (state !== 'serving') return instance?.kill()
    instance?.signal(fn.stopSignal)
    member.timer = setTimeout(() => instance?.kill(), stopGraceMs)
  }

  const lose = (member: Member, why: string): void => {
    warn(member, `${why} and is ended`)
    end(member)
    report(member, `an instance ${why}`)
  }

  const report = ({ isFresh, startedMs }: Member, why: string): void =>
    onLost({ why, isFresh, livedMs: performance.now() - startedMs })

  const wait = (member: Member, startedMs?: number): void => {
    moveTo(member, 'waiting')
    onWaiting(startedMs)
    member.isFresh = false
  }

  const onConnect = (member: Member, version: ServedFunction, handler: WaitingHandler): void => {
    if (member.state !== 'starting') return handler[Symbol.dispose]()
    clearTimeout(member.timer)
    member.handler = handler
    if (version.options.reuse) {
      handler.allowNext({
        onNext: () => onNext(member),
        onBreach(what) {
          if (member.state === 'waiting') return lose(member, what)
          warn(member, `${what} and is ended`)
          end(member)
        },
      })
    }
    wait(member, performance.now() - member.startedMs)
  }

  const onNext = (member: Member): void => {
    if (member.state !== 'serving') return
    if (member.isRetired) return end(member)
    clearTimeout(member.timer)
    wait(member)
  }

  const onServing = (member: Member, { options }: ServedFunction): void => {
    const { totalMs } = options.timeouts
    member.timer = setTimeout(() => {
      warn(member, `did not end within ${totalMs} ms and is ended`)
      end(member)
    }, totalMs)
    if (options.reuse) member.audit ??= setTimeout(() => void audit(member, totalMs), totalMs)
  }

  const heldBy = async (member: Member): Promise<ReadonlySet<number>> => {
    const pids = member.instance === undefined ? [] : await deps.listProcesses(member.instance.id)
    return heldConnections(pids, fn.address)
  }

  /** Ends an instance that holds what it already held the last time; goes on for as long as it holds anything. */
  const audit = async (member: Member, everyMs: number): Promise<void> => {
    member.audit = undefined
    const held = await heldBy(member).catch(() => new Set<number>())
    if (member.state === 'ending') return
    if ([...held].some((inode) => member.heldBefore.has(inode))) {
      warn(member, `has held a connection for more than ${everyMs} ms and is ended`)
      return end(member)
    }
    member.heldBefore = held
    if (held.size > 0) member.audit ??= setTimeout(() => void audit(member, everyMs), everyMs)
  }

  /** With `reuse`, one that an earlier daemon has left may have been between two connections. */
  const endUnlessServing = async (member: Member): Promise<void> => {
    const held = await heldBy(member).catch(() => undefined)
    if (held?.size === 0) end(member)
  }

  /** From its start to its last trace. Never rejects. */
  const live = async (member: Member, version: ServedFunction): Promise<void> => {
    const attach = (directory: string) =>
      openControlSocket(directory, version.user, deps.poller, (handler) =>
        onConnect(member, version, handler),
      )
    try {
      member.instance = await startInstance(version, attach, deps)
      if (member.state === 'ending') member.instance.kill()
      await member.instance.ended
      if (member.state === 'starting') lose(member, 'ended before it connected to its control socket')
      else if (member.state === 'waiting') lose(member, 'ended while it waited')
    } catch (error) {
      const why = toFaasError(error).message
      deps.log.error(version.name, `an instance could not be started: ${why}`)
      if (member.state !== 'ending') {
        end(member)
        report(member, why)
      }
    } finally {
      leave(member)
    }
  }

  const leave = (member: Member): void => {
    end(member)
    clearTimeout(member.timer)
    clearTimeout(member.audit)
    members.delete(member)
    deps.metrics.instances(fn.name, members.size)
    onEnded()
  }

  const join = (member: Member, work: (member: Member) => Promise<void>): void => {
    members.add(member)
    deps.metrics.instances(fn.name, members.size)
    member.ended = work(member)
  }

  const isOther = (member: Member, version: ServedFunction | undefined): boolean =>
    version === undefined || member.version !== version

  return {
    size: () => members.size,
    starting: () => starting,
    waiting: () => waiting.length,
    ids: () => [...members].flatMap(({ instance }) => (instance === undefined ? [] : [instance.id])),
    start(version) {
      const member = newMember(version, 'starting')
      const { connectMs } = version.options.timeouts
      starting++
      member.timer = setTimeout(
        () => lose(member, `did not connect to its control socket within ${connectMs} ms`),
        connectMs,
      )
      join(member, () => live(member, version))
    },
    pass(connection) {
      const member = waiting.at(-1)
      if (member?.version === undefined) return false
      if (!member.handler?.handOver(connection)) {
        lose(member, 'was gone when it should get a connection')
        return false
      }
      moveTo(member, 'serving')
      onServing(member, member.version)
      return true
    },
    adopt(instance, version) {
      const member = newMember(version, 'serving')
      member.instance = instance
      onServing(member, version ?? fn)
      if (version?.options.reuse) void endUnlessServing(member)
      join(member, async () => {
        await instance.ended
        leave(member)
      })
    },
    endWaiting(keep) {
      for (const member of waiting.slice(0, Math.max(0, waiting.length - keep))) end(member)
    },
    retireOthers(version) {
      for (const member of members) {
        if (!isOther(member, version)) continue
        member.isRetired = true
        if (member.state === 'starting' || member.state === 'waiting') end(member)
      }
    },
    async endedOthers(version) {
      const others = [...members].filter((member) => isOther(member, version))
      await Promise.all(others.map(({ ended }) => ended))
    },
  }
}
