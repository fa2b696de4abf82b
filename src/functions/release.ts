/**
 * Puts a version of a function in place, whether it came by an upload or from the versions that are kept:
 *
 *   mount → prove an instance → **commit** → reconcile → wait for the name
 *
 * Before the commit the version that was there serves, and a failure leaves nothing. After it, a crash is finished by
 * the reconcile of the next start.
 */
import type { Clock } from '../host/clock.ts'
import type { Reach } from '../host/failpoints.ts'
import type { Image } from '../images/image.ts'
import type { ImageStore } from '../images/store.ts'
import { firstFreeAddress, functionPool, restingAddresses } from '../net/addresses.ts'
import type { NameProbe } from '../net/name-probe.ts'
import { FaasError, toFaasError } from '../values/errors.ts'
import type { Ipv6 } from '../values/ipv6.ts'
import type { FunctionName } from '../values/names.ts'
import { failuresOf, type Reconciler } from './execute.ts'
import {
  type ContractName,
  commandOf,
  contractNames,
  defaultTimeouts,
  type FunctionOptions,
  type FunctionRecord,
  type FunctionVersion,
  keptVersions,
  versionsOf,
} from './function.ts'
import type { Step } from './plan.ts'
import { prepareVersion } from './prepare.ts'
import type { Registry } from './registry.ts'
import type { Serving } from './serving.ts'

/** How long a deploy or a removal waits for the name server to tell what it was given. */
export const nameTimeoutMs = 5_000

export interface DeployProgress {
  readonly step: 'receive' | 'verify' | 'unpack' | 'prove' | 'commit' | 'publish'
  readonly message: string
}

export interface Deployed {
  readonly name: FunctionName
  readonly ip: Ipv6
  readonly cmd: readonly string[]
  /** As stated, or as the image's first instance showed. */
  readonly contract: ContractName
  readonly version: number
  /** What the function is committed with and could not be done yet; it is tried again by itself. */
  readonly warnings: readonly string[]
}

/** Aborting has an effect up to the commit, and none afterwards. */
export interface ReleaseOptions {
  readonly signal: AbortSignal
  readonly onProgress: (progress: DeployProgress) => void
}

export interface FunctionsDeps {
  readonly registry: Registry
  readonly images: ImageStore
  readonly serving: Serving
  readonly reconciler: Reconciler
  readonly names: NameProbe
  readonly clock: Clock
  /** D1 to D15 (docs/ARCHITECTURE.md). */
  readonly reach: Reach
}

export interface NameLocks {
  /** Throws FUNCTION_BUSY while the name is held. */
  take(name: FunctionName): Disposable
}

export function createNameLocks(): NameLocks {
  const held = new Set<FunctionName>()
  return {
    take(name) {
      if (held.has(name)) {
        throw new FaasError(
          'FUNCTION_BUSY',
          `${name} is being deployed, rolled back or removed by someone else`,
          {
            hint: 'wait until that is done and try again',
          },
        )
      }
      held.add(name)
      return { [Symbol.dispose]: () => void held.delete(name) }
    },
  }
}

/** A version that has no number yet. `contract` is found out by starting the image where it is left out. */
export type Candidate = Pick<FunctionVersion, 'ports' | 'options' | 'rollbackOf'> & {
  readonly contract?: ContractName
}

/** The caller holds the name, and the image until {@link Reconciler.retireOldVersions}. */
export type Release = (
  name: FunctionName,
  image: Image,
  candidate: Candidate,
  options: ReleaseOptions,
) => Promise<Deployed>

export function createRelease(deps: FunctionsDeps): Release {
  const { registry, images, serving, reconciler, names, clock, reach } = deps
  /** Addresses of functions that have not been committed yet. */
  const reserved = new Set<Ipv6>()

  const chooseAddress = (name: FunctionName): Ipv6 => {
    const { functions, resting } = registry.content
    const kept = functions.get(name)?.address
    if (kept) return kept
    const used = [...functions.values()].map(({ address }) => address)
    const rest = restingAddresses(resting, clock.now().getTime()).map(({ address }) => address)
    return firstFreeAddress(functionPool, new Set([...used, ...rest, ...reserved]))
  }

  /** The record as it will be, but for the contract where that is still to be found out. */
  const draft = (
    name: FunctionName,
    address: Ipv6,
    image: Image,
    { contract = 'listen', ...rest }: Candidate,
  ): FunctionRecord => {
    const before = registry.content.functions.get(name)
    const deployed = clock.now().toISOString()
    return {
      ...rest,
      version: (before?.version ?? 0) + 1,
      image: image.id,
      contract,
      deployed,
      address,
      created: before?.created ?? deployed,
      previous: before
        ? versionsOf(before)
            .slice(0, keptVersions - 1)
            .toReversed()
        : [],
    }
  }

  const commit = (name: FunctionName, record: FunctionRecord): Promise<void> =>
    registry.commit(({ functions, resting }) => ({
      functions: new Map(functions).set(name, record),
      resting: restingAddresses(resting, clock.now().getTime()),
    }))

  const publish = async (name: FunctionName, address: Ipv6): Promise<readonly string[]> => {
    const warnings = failuresOf(name, await reconciler.reconcile(createStepReports(name, reach)))
    if (warnings.length > 0) return warnings
    // Not in the reconcile, where others would have to wait for this function's instance.
    await serving.inPlace(name)
    try {
      await names.waitForAddress(name, address, nameTimeoutMs)
      return []
    } catch (error) {
      return [toFaasError(error).message]
    }
  }

  return async (name, image, candidate, { signal, onProgress }) => {
    const address = chooseAddress(name)
    reserved.add(address)
    try {
      const record = draft(name, address, image, candidate)
      onProgress({ step: 'prove', message: 'starting an instance to see that it works' })
      const contracts = candidate.contract === undefined ? contractNames : [candidate.contract]
      const contract = await serving.prove(await prepareVersion(name, record, images), contracts, signal)
      signal.throwIfAborted()
      onProgress({ step: 'commit', message: `${name} is ${address}, contract ${contract}` })
      await commit(name, { ...record, contract })
      onProgress({ step: 'publish', message: `waiting until ${name}.faas resolves` })
      const warnings = [...uselessOptions(contract, candidate.options), ...(await publish(name, address))]
      await reach('D13')
      return { name, ip: address, cmd: commandOf(image.config), contract, version: record.version, warnings }
    } finally {
      reserved.delete(address)
    }
  }
}

/** What was stated for the other contract: the image's own may have been found out only now. */
export function uselessOptions(
  contract: ContractName,
  { standby, reuse, minInstances, timeouts }: FunctionOptions,
): readonly string[] {
  const stated =
    contract === 'listen'
      ? { standby: typeof standby === 'number', reuse: reuse === true }
      : { min: minInstances > 0, pause: timeouts.pauseMs !== defaultTimeouts.pauseMs }
  return Object.entries(stated)
    .filter(([, isStated]) => isStated)
    .map(([option]) => `--${option} has no effect: the image speaks the contract ${contract}`)
}

/** Somebody else's run may have taken the step that serves the function: then it is done by the time of the zone. */
function createStepReports(name: FunctionName, reach: Reach): (step: Step) => Promise<void> {
  let served = false
  return async (step) => {
    if (step.kind === 'setAddresses') await reach('D10')
    const isServed = step.kind === 'writeZone' || (step.kind === 'serve' && step.name === name)
    if (isServed && !served) {
      served = true
      await reach('D11')
    }
    if (step.kind === 'writeZone') await reach('D12')
  }
}
