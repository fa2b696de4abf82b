/**
 * Carrying the plan out. Runs are one after another; a step that fails is reported and does not keep the others from
 * being taken, because one function's trouble is not another's. What failed is found again by the next run.
 */

import { constants } from 'node:os'
import { findMountPoints } from '../images/mount-points.ts'
import type { ImageStore } from '../images/store.ts'
import type { ZoneFile } from '../net/dns.ts'
import type { Firewall, ListenerAddress } from '../net/firewall.ts'
import type { Links } from '../net/links.ts'
import type { Log } from '../telemetry/log.ts'
import type { Digest } from '../values/digest.ts'
import { type FaasError, toFaasError } from '../values/errors.ts'
import { ID_BASE } from '../values/id-map.ts'
import type { FunctionName } from '../values/names.ts'
import { commandOf, environmentOf, type FunctionRecord, type ServedFunction } from './function.ts'
import { listenersOf, type Observed, planReconcile, type Step } from './plan.ts'
import type { Registry } from './registry.ts'
import type { Serving } from './serving.ts'

export interface ReconcilerDeps {
  readonly registry: Registry
  readonly images: ImageStore
  readonly serving: Serving
  readonly firewall: Firewall
  readonly links: Pick<Links, 'applyAddresses'>
  readonly zone: ZoneFile
  readonly log: Log
}

export interface Failure {
  readonly step: Step
  readonly error: FaasError
}

export interface Reconciler {
  /** Brings everything that is derived to what the registry says. Answers what could not be done; never rejects. */
  reconcile(): Promise<readonly Failure[]>
  /** Makes the next run replace the packet filter's table as a whole: somebody else has touched it. */
  distrustFilter(): void
  /** Frees what functions and versions that are gone have left: mounts, then layers. What is held stays. */
  collect(): Promise<void>
  /** Keeps an image and its mount for a function that the registry does not name yet, until disposed. */
  hold(name: FunctionName, image: Digest): Disposable
  /** Waits for removed functions and old versions whose requests are still in flight, and for what follows them. */
  settled(): Promise<void>
  /**
   * In the background: when the old versions of `name` have no instance left, disposes of `held` and then unmounts
   * and collects what nobody else holds.
   */
  retireOldVersions(name: FunctionName, held: Disposable): void
}

/** One executor a step: a new kind of step does not compile until it has one. */
type Executors = { [K in Step['kind']]: (step: Extract<Step, { kind: K }>) => Promise<void> | void }

export function createReconciler(deps: ReconcilerDeps): Reconciler {
  const { registry, images, serving, firewall, links, zone, log } = deps
  let filter: readonly ListenerAddress[] | undefined
  const draining = new Map<Promise<void>, readonly ListenerAddress[]>()
  const holds = new Set<{ readonly name: FunctionName; readonly image: Digest }>()
  const background = new Set<Promise<void>>()
  let turn: Promise<unknown> = Promise.resolve()

  const executors: Executors = {
    async replaceFilter({ listeners }) {
      await firewall.apply({ listeners })
      filter = listeners
    },
    async openFilter({ listeners }) {
      await firewall.addListeners(listeners)
      filter = [...(filter ?? []), ...listeners]
    },
    setAddresses: ({ addresses }) => links.applyAddresses(addresses),
    async serve({ name }) {
      const record = registry.content.functions.get(name)
      if (!record) return
      const before = serving.served().get(name)
      const version = await prepareVersion(name, record, images)
      const held = before && hold(name, before.image)
      serving.open(version)
      if (held) retireOldVersions(name, held)
      await images.selectRootfs(name, record.image)
    },
    async writeZone({ records }) {
      await zone.apply(records)
    },
    stopServing({ name }) {
      const fn = serving.served().get(name)
      if (!fn) return
      const held = hold(name, fn.image)
      const closing = serving.close(name)
      draining.set(closing, listenersOf(fn))
      inBackground(`remove ${name}`, async () => {
        await closing
        draining.delete(closing)
        held[Symbol.dispose]()
        await reconcile()
        await release(name)
      })
    },
    async closeFilter({ listeners }) {
      const gone = new Set(listeners)
      await firewall.removeListeners(listeners)
      filter = filter?.filter((listener) => !gone.has(listener))
    },
  }

  const take = async (step: Step): Promise<Failure | undefined> => {
    try {
      // The table's type says that each kind has its executor; the pairing itself cannot be expressed.
      await (executors[step.kind] as (step: Step) => Promise<void> | void)(step)
      return undefined
    } catch (thrown) {
      const error = toFaasError(thrown)
      if (step.kind === 'openFilter' || step.kind === 'closeFilter') filter = undefined
      log.error('reconcile', `${describeStep(step)}: ${error.message}`)
      return { step, error }
    }
  }

  const observe = (): Observed => ({
    served: serving.served(),
    draining: [...draining.values()].flat(),
    filter,
  })

  const run = async (): Promise<readonly Failure[]> => {
    const failures: Failure[] = []
    for (const step of planReconcile(registry.content, observe())) {
      const failure = await take(step)
      if (failure) failures.push(failure)
    }
    return failures
  }

  const reconcile = (): Promise<readonly Failure[]> => {
    const mine = turn.then(run)
    turn = mine
    return mine
  }

  const collect = async (): Promise<void> => {
    const { functions } = registry.content
    const live = [...functions.values(), ...serving.served().values(), ...holds].map(({ image }) => image)
    const names = [...functions.keys(), ...[...holds].map(({ name }) => name)]
    await images.collect(new Set(live), new Set(names))
  }

  const hold = (name: FunctionName, image: Digest): Disposable => {
    const held = { name, image }
    holds.add(held)
    return { [Symbol.dispose]: () => void holds.delete(held) }
  }

  /** Unmounts what `name` no longer runs. While somebody holds a version of it, nothing: they come here later. */
  const release = async (name: FunctionName): Promise<void> => {
    if ([...holds].some((held) => held.name === name)) return
    await images.releaseRootfs(name, registry.content.functions.get(name)?.image)
    await collect()
  }

  const inBackground = (what: string, work: () => Promise<void>): void => {
    const task = work()
      .catch((error: unknown) => log.error('reconcile', `${what}: ${toFaasError(error).message}`))
      .finally(() => background.delete(task))
    background.add(task)
  }

  const retireOldVersions = (name: FunctionName, held: Disposable): void =>
    inBackground(`retire old versions of ${name}`, async () => {
      let image: Digest | undefined
      do {
        image = serving.served().get(name)?.image
        await serving.drained(name)
        // Another version may have come meanwhile, and the one that was current has instances of its own now.
      } while (image !== serving.served().get(name)?.image)
      held[Symbol.dispose]()
      await release(name)
    })

  return {
    reconcile,
    collect,
    hold,
    retireOldVersions,
    distrustFilter() {
      filter = undefined
    },
    async settled() {
      while (background.size > 0) await Promise.all(background)
    },
  }
}

/** Where servers write their pids, sockets and scratch files; `/tmp` and `/dev/shm` are in every container. */
const usualScratch = ['/run', '/var/run', '/var/tmp', '/var/cache', '/var/log'] as const

/** Everything that starting an instance takes: the image's record, its mounted root, its user's ids. */
export async function prepareVersion(
  name: FunctionName,
  record: FunctionRecord,
  images: ImageStore,
): Promise<ServedFunction> {
  const image = await images.load(record.image)
  const rootfs = await images.mountRootfs(name, image)
  return {
    name,
    address: record.address,
    ports: record.ports,
    contract: record.contract,
    image: record.image,
    rootfs,
    argv: commandOf(image.config),
    env: environmentOf(image, record.options, { name, address: record.address, ports: record.ports }),
    cwd: image.config.workingDir || '/',
    user: await images.resolveUser(rootfs, image.config.user),
    scratch: await findMountPoints(rootfs, [...usualScratch, ...image.config.volumes], ID_BASE),
    stopSignal: signalNumber(image.config.stopSignal),
    options: record.options,
  }
}

/** A signal's number by its name or number, as STOPSIGNAL has it; SIGTERM for what is not known. */
function signalNumber(signal: string): number {
  const name = signal.startsWith('SIG') ? signal : `SIG${signal}`
  const known = constants.signals[name as NodeJS.Signals] as number | undefined
  return known ?? (/^\d{1,2}$/.test(signal) ? Number(signal) : constants.signals.SIGTERM)
}

function describeStep(step: Step): string {
  switch (step.kind) {
    case 'serve':
    case 'stopServing':
      return `${step.kind} ${step.name}`
    default:
      return step.kind
  }
}
