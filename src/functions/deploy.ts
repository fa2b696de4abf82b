/**
 * Deploy, from the archive's first byte to the name that resolves (docs/ARCHITECTURE.md draws it):
 *
 *   check name → receive, verify, unpack (the image store) → mount → prove an instance → **commit** → reconcile →
 *   wait for the name → answer; then, in the background, drain the old version and collect.
 *
 * Before the commit the old version serves and a failure leaves nothing; after it, a crash is finished by the
 * reconcile of the next start. Deploys of one name exclude each other (FUNCTION_BUSY), others run side by side.
 */
import type { Clock } from '../host/clock.ts'
import type { ImageStore } from '../images/store.ts'
import { firstFreeAddress, functionPool, restingAddresses } from '../net/addresses.ts'
import type { NameProbe } from '../net/name-probe.ts'
import { FaasError, toFaasError } from '../values/errors.ts'
import type { Ipv6 } from '../values/ipv6.ts'
import type { FunctionName } from '../values/names.ts'
import { prepareVersion, type Reconciler } from './execute.ts'
import {
  type ContractName,
  commandOf,
  contractNames,
  type FunctionOptions,
  type FunctionRecord,
  type PortMapping,
  portsOf,
} from './function.ts'
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
  /** What the function is committed with and could not be done yet; it is tried again by itself. */
  readonly warnings: readonly string[]
}

export interface DeployRequest {
  readonly name: FunctionName
  /** A `docker save` archive. */
  readonly body: AsyncIterable<Uint8Array>
  /** Which image of the archive, where it has several. */
  readonly pick?: string
  /** Found out by starting the image where it is left out. */
  readonly contract?: ContractName
  /** Where the image listens; by default what it exposes, at port 80 of the address. */
  readonly ports?: readonly PortMapping[]
  readonly options: FunctionOptions
  /** Aborts up to the commit; afterwards it has no effect. */
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
        throw new FaasError('FUNCTION_BUSY', `${name} is being deployed or removed by someone else`, {
          hint: 'wait until that is done and try again',
        })
      }
      held.add(name)
      return { [Symbol.dispose]: () => void held.delete(name) }
    },
  }
}

export type Deploy = (request: DeployRequest) => Promise<Deployed>

export function createDeploy(deps: FunctionsDeps & { readonly locks: NameLocks }): Deploy {
  const { registry, images, serving, reconciler, names, clock, locks } = deps
  /** Addresses of deploys that have not committed yet. */
  const reserved = new Set<Ipv6>()

  const chooseAddress = (name: FunctionName): Ipv6 => {
    const { functions, resting } = registry.content
    const kept = functions.get(name)?.address
    if (kept) return kept
    const used = [...functions.values()].map(({ address }) => address)
    const rest = restingAddresses(resting, clock.now().getTime()).map(({ address }) => address)
    return firstFreeAddress(functionPool, new Set([...used, ...rest, ...reserved]))
  }

  const commit = (name: FunctionName, record: FunctionRecord): Promise<void> =>
    registry.commit(({ functions, resting }) => ({
      functions: new Map(functions).set(name, record),
      resting: restingAddresses(resting, clock.now().getTime()),
    }))

  const publish = async (name: FunctionName, address: Ipv6): Promise<readonly string[]> => {
    const failures = await reconciler.reconcile()
    const warnings = failures
      .filter(({ step }) => !('name' in step) || step.name === name)
      .map(({ step, error }) => `${step.kind}: ${error.message}`)
    if (warnings.length > 0) return warnings
    try {
      await names.waitForAddress(name, address, nameTimeoutMs)
      return []
    } catch (error) {
      return [toFaasError(error).message]
    }
  }

  return async ({ name, body, pick, contract, ports, options, signal, onProgress }) => {
    using _lock = locks.take(name)
    const image = await images.receive(body, { signal, onProgress, ...(pick === undefined ? {} : { pick }) })
    const held = reconciler.hold(name, image.id)
    const address = chooseAddress(name)
    reserved.add(address)
    try {
      const before = registry.content.functions.get(name)
      const updated = clock.now().toISOString()
      const record: FunctionRecord = {
        address,
        ports: ports ?? portsOf(image.config),
        contract: contract ?? 'listen',
        image: image.id,
        created: before?.created ?? updated,
        updated,
        options,
      }
      onProgress({ step: 'prove', message: 'starting an instance to see that it works' })
      const contracts = contract === undefined ? contractNames : [contract]
      const shown = await serving.prove(await prepareVersion(name, record, images), contracts, signal)
      signal.throwIfAborted()
      onProgress({ step: 'commit', message: `${name} is ${address}, contract ${shown}` })
      await commit(name, { ...record, contract: shown })
      onProgress({ step: 'publish', message: `waiting until ${name}.faas resolves` })
      const warnings = await publish(name, address)
      return { name, ip: address, cmd: commandOf(image.config), contract: shown, warnings }
    } finally {
      reserved.delete(address)
      // On failure this removes what was received; on success only what the new version replaced.
      reconciler.retireOldVersions(name, held)
    }
  }
}
