/**
 * Deploy, from the archive's first byte to the name that resolves (docs/ARCHITECTURE.md draws it): check name →
 * receive, verify, unpack (the image store) → release (release.ts) → answer; then, in the background, drain the old
 * version and collect.
 *
 * Deploys of one name exclude each other (FUNCTION_BUSY), others run side by side.
 */
import type { FunctionName } from '../values/names.ts'
import { type ContractName, type FunctionOptions, type PortMapping, portsOf } from './function.ts'
import type { Deployed, FunctionsDeps, NameLocks, Release, ReleaseOptions } from './release.ts'

export interface DeployRequest extends ReleaseOptions {
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
}

export type Deploy = (request: DeployRequest) => Promise<Deployed>

export interface DeployDeps extends Pick<FunctionsDeps, 'images' | 'reconciler' | 'reach'> {
  readonly locks: NameLocks
  readonly release: Release
}

export function createDeploy({ images, reconciler, reach, locks, release }: DeployDeps): Deploy {
  return async ({ name, body, pick, contract, ports, options, signal, onProgress }) => {
    using _lock = locks.take(name)
    await reach('D1')
    const image = await images.receive(body, { signal, onProgress, ...(pick === undefined ? {} : { pick }) })
    const held = reconciler.hold(name, image.id)
    try {
      const candidate = {
        ports: ports ?? portsOf(image.config, options),
        options,
        ...(contract === undefined ? {} : { contract }),
      }
      return await release(name, image, candidate, { signal, onProgress })
    } finally {
      // On failure this removes what was received; on success only what the new version replaced.
      reconciler.retireOldVersions(name, held)
    }
  }
}
