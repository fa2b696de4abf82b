/**
 * The instances of one function of the `listen` contract: those that serve, which are frozen and thawed together, and
 * those that are on their way out. An instance that is asked to go finishes what it holds: it is ended when it holds
 * no connection any more, at the latest after its function's total time.
 */
import type { ServedFunction } from '../functions/function.ts'
import type { Clock } from '../host/clock.ts'
import type { Freezer } from '../runtime/freezer.ts'
import { catchesSignal, holdsNothing } from './holdings.ts'
import type { Instance } from './instance.ts'

export interface MembersDeps {
  readonly freezer: Freezer
  readonly clock: Clock
  readonly listProcesses: (id: string) => Promise<readonly number[]>
}

/** How long an instance that holds nothing has after its stop signal. */
const graceMs = 10_000
const lookMs = 100

interface Member {
  readonly instance: Instance
  ended: Promise<void>
}

export interface Members {
  /** Instances that serve. */
  active(): number
  /** Those and the ones that are ending. */
  size(): number
  ids(): readonly string[]
  isFrozen(): boolean
  join(instance: Instance): void
  freeze(): Promise<void>
  /** Does nothing when nothing is frozen. */
  thaw(): Promise<void>
  cpuMs(usageOf: (id: string) => Promise<{ readonly cpuMs: number }>): Promise<number>
  /** Asks frozen instances to end, all but `keep` of them. They hold no connection. */
  endIdle(keep: number, stopSignal: number): void
  /** Asks instances of other versions than `version` to go: of all versions when it is undefined. */
  retireOthers(version: ServedFunction | undefined): void
  /** Resolves when no instance of another version is left. */
  endedOthers(version: ServedFunction | undefined): Promise<void>
}

/** `onChange` is called whenever an instance has come or gone. */
export function createMembers(
  { freezer, clock, listProcesses }: MembersDeps,
  { address, options, stopSignal }: Pick<ServedFunction, 'address' | 'options' | 'stopSignal'>,
  onChange: () => void,
): Members {
  const serving = new Set<Member>()
  const leaving = new Set<Member>()
  let frozen = false

  const isOther = ({ instance }: Member, version: ServedFunction | undefined): boolean =>
    version === undefined || instance.versionId !== version.versionId

  const retire = async (member: Member): Promise<void> => {
    const { instance } = member
    const isGraceful = catchesSignal(instance.pid, stopSignal)
    if (isGraceful) instance.signal(stopSignal)
    const startedMs = clock.monotonicMs()
    const over = new AbortController()
    void member.ended.then(() => over.abort())
    while (!over.signal.aborted) {
      const elapsedMs = clock.monotonicMs() - startedMs
      const lookedMs = clock.monotonicMs()
      const isFree = await holdsNothing(await listProcesses(instance.id), address)
      const costMs = clock.monotonicMs() - lookedMs
      if (isFree && (!isGraceful || elapsedMs > graceMs)) break
      if (elapsedMs > Math.max(options.timeouts.totalMs, graceMs)) break
      await clock.sleep(Math.max(lookMs, costMs * 20), over.signal)
    }
    instance.kill()
  }

  const leave = (member: Member, work: Promise<void>): void => {
    serving.delete(member)
    leaving.add(member)
    if (serving.size === 0) frozen = false
    // What cannot be looked at cannot be waited for.
    void work.catch(() => member.instance.kill())
    onChange()
  }

  return {
    active: () => serving.size,
    size: () => serving.size + leaving.size,
    ids: () => [...serving, ...leaving].map(({ instance }) => instance.id),
    isFrozen: () => frozen,
    join(instance) {
      const member: Member = { instance, ended: Promise.resolve() }
      member.ended = instance.ended.then(() => {
        serving.delete(member)
        leaving.delete(member)
        if (serving.size === 0) frozen = false
        onChange()
      })
      serving.add(member)
      onChange()
    },
    async freeze() {
      try {
        await Promise.all([...serving].map(({ instance }) => freezer.freeze(instance.id)))
        frozen = serving.size > 0
      } catch (error) {
        await Promise.allSettled([...serving].map(({ instance }) => freezer.thaw(instance.id)))
        throw error
      }
    },
    async thaw() {
      if (!frozen) return
      frozen = false
      await Promise.all([...serving].map(({ instance }) => freezer.thaw(instance.id)))
    },
    async cpuMs(usageOf) {
      const usages = await Promise.all([...serving].map(({ instance }) => usageOf(instance.id)))
      return usages.reduce((sum, { cpuMs }) => sum + cpuMs, 0)
    },
    endIdle(keep, signal) {
      for (const member of [...serving].slice(keep)) leave(member, endFrozen(member, signal))
    },
    retireOthers(version) {
      for (const member of [...serving]) if (isOther(member, version)) leave(member, retire(member))
    },
    async endedOthers(version) {
      for (;;) {
        const others = [...serving, ...leaving].filter((member) => isOther(member, version))
        if (others.length === 0) return
        await Promise.race(others.map(({ ended }) => ended))
      }
    },
  }

  /** A signal that was sent to a frozen process is the first thing it sees when it thaws: it accepts nothing more. */
  async function endFrozen({ instance, ended }: Member, signal: number): Promise<void> {
    if (catchesSignal(instance.pid, signal)) instance.signal(signal)
    else instance.kill()
    await freezer.thaw(instance.id).catch(() => {})
    const over = new AbortController()
    void ended.then(() => over.abort())
    await clock.sleep(graceMs, over.signal)
    instance.kill()
  }
}
