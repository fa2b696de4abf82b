/**
 * Carrying the plan out. Runs are one after another; a step that fails is reported and does not keep the others from
 * being taken, because one function's trouble is not another's. What failed is found again by the next run.
 */

import type { Reach } from '../host/failpoints.ts'
import type { ImageStore } from '../images/store.ts'
import type { ZoneFile } from '../net/dns.ts'
import type { Firewall, ListenerAddress } from '../net/firewall.ts'
import type { Links } from '../net/links.ts'
import type { Log } from '../telemetry/log.ts'
import type { Digest } from '../values/digest.ts'
import { type FaasError, toFaasError } from '../values/errors.ts'
import type { FunctionName } from '../values/names.ts'
import type { VersionId } from './function.ts'
import { listenersOf, type Observed, planReconcile, type Step } from './plan.ts'
import { prepareVersion } from './prepare.ts'
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
  /** D14 and D15 (docs/ARCHITECTURE.md). */
  readonly reach: Reach
}

export interface Failure {
  readonly step: Step
  readonly error: FaasError
}

export interface Reconciler {
  /**
   * Brings everything that is derived to what the registry says. Answers what could not be done; never rejects.
   * `onStep` is called after each step of this run.
   */
  reconcile(onStep?: (step: Step) => Promise<void> | void): Promise<readonly Failure[]>
  /** Makes the next run replace the packet filter's table as a whole: somebody else has touched it. */
  distrustFilter(): void
  /**
   * Frees what functions and versions that are gone have left: mounts, then layers. What is held stays, and the images
   * of versions that a rollback may want.
   */
  collect(): Promise<void>
  /** Keeps an image and its mount for a function that the registry does not name yet, until disposed. */
  hold(name: FunctionName, image: Digest): Disposable
  /**
   * In the background: when the old versions of `name` have no instance left, disposes of `held` and then unmounts
   * and collects what nobody else holds.
   */
  retireOldVersions(name: FunctionName, held: Disposable): void
}

/** What of a run's failures concerns one function: its own steps, and those that concern all. */
export const failuresOf = (name: FunctionName, failures: readonly Failure[]): readonly string[] =>
  failures
    .filter(({ step }) => !('name' in step) || step.name === name)
    .map(({ step, error }) => `${step.kind}: ${error.message}`)

/** One executor a step: a new kind of step does not compile until it has one. */
type Executors = { [K in Step['kind']]: (step: Extract<Step, { kind: K }>) => Promise<void> | void }

export function createReconciler(deps: ReconcilerDeps): Reconciler {
  const { registry, images, serving, firewall, links, zone, log, reach } = deps
  let filter: readonly ListenerAddress[] | undefined
  const draining = new Map<Promise<void>, readonly ListenerAddress[]>()
  const holds = new Set<{ readonly name: FunctionName; readonly image: Digest }>()
  let turn: Promise<unknown> = Promise.resolve()

  const executors: Executors = {
    async replaceFilter({ listeners }) {
      await firewall.apply({ listeners })
      filter = listeners
    },
    async openFilter({ listeners }) {
      await firewall.addListeners(listeners)
      // Not where somebody has distrusted it meanwhile.
      filter = filter && [...filter, ...listeners]
    },
    setAddresses: ({ addresses }) => links.applyAddresses(addresses),
    async serve({ name }) {
      const record = registry.content.functions.get(name)
      if (!record) return
      const before = serving.served().get(name)
      const version = await prepareVersion(name, record, images)
      // Before it is served: what is served already is not looked at again.
      await images.selectRootfs(name, record.image)
      const held = before && hold(name, before.image)
      await serving.open(version)
      if (held) retireOldVersions(name, held)
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

  const run = async (onStep: (step: Step) => Promise<void> | void): Promise<readonly Failure[]> => {
    const failures: Failure[] = []
    for (const step of planReconcile(registry.content, observe())) {
      const failure = await take(step)
      if (failure) failures.push(failure)
      await onStep(step)
    }
    return failures
  }

  const reconcile: Reconciler['reconcile'] = (onStep = () => {}) => {
    const mine = turn.then(() => run(onStep))
    turn = mine.catch(() => {})
    return mine
  }

  const collect = (): Promise<void> =>
    images.collect(() => {
      const { functions } = registry.content
      const mounted = [...functions.values(), ...serving.served().values(), ...holds].map(
        ({ image }) => image,
      )
      const kept = [...functions.values()].flatMap(({ previous }) => previous.map(({ image }) => image))
      const names = [...functions.keys(), ...[...holds].map(({ name }) => name)]
      return { live: new Set([...mounted, ...kept]), names: new Set(names), mounted: new Set(mounted) }
    })

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
    void work().catch((error: unknown) => log.error('reconcile', `${what}: ${toFaasError(error).message}`))
  }

  const retireOldVersions = (name: FunctionName, held: Disposable): void =>
    inBackground(`retire old versions of ${name}`, async () => {
      let version: VersionId | undefined
      do {
        version = serving.served().get(name)?.versionId
        await serving.drained(name)
        // Another version may have come meanwhile, and the one that was current has instances of its own now.
      } while (version !== serving.served().get(name)?.versionId)
      await reach('D14')
      held[Symbol.dispose]()
      await release(name)
      await reach('D15')
    })

  return {
    reconcile,
    collect,
    hold,
    retireOldVersions,
    distrustFilter() {
      filter = undefined
    },
  }
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
