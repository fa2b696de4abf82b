/**
 * Rollback: a deploy without an upload. An earlier version is released again under a new number, with its image, its
 * contract, its ports and its options as they were: it is proven first, and the current version serves until then.
 */
import { hexOf } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import type { FunctionName } from '../values/names.ts'
import { type FunctionRecord, type FunctionVersion, versionsOf } from './function.ts'
import type { Deployed, FunctionsDeps, NameLocks, Release, ReleaseOptions } from './release.ts'
import { recordOf } from './remove.ts'

/** A version by its number, or by the first hex digits of its image's digest. */
export type VersionReference = { readonly version: number } | { readonly imagePrefix: string }

/** Longer digits are the beginning of a digest that has no letter in it. */
const numberForm = /^[1-9]\d{0,8}$/
const imageForm = /^(?:sha256:)?([0-9a-f]{6,64})$/

/** Reads what a person writes for a version. Throws OPTION_INVALID. */
export function parseVersionReference(text: string): VersionReference {
  if (numberForm.test(text)) return { version: Number(text) }
  const [, imagePrefix] = imageForm.exec(text) ?? []
  if (imagePrefix !== undefined) return { imagePrefix }
  throw new FaasError(
    'OPTION_INVALID',
    `version: expected a version, got ${JSON.stringify(text.slice(0, 80))}`,
    {
      hint: "name it by its number, or by at least 6 hex digits of its image's digest",
    },
  )
}

/**
 * The version that is meant; without a reference the one before the current. Of several with one image it is the
 * newest. Throws VERSION_UNKNOWN, and OPTION_INVALID where the digits fit several images.
 */
export function findVersion(
  name: FunctionName,
  record: FunctionRecord,
  reference: VersionReference | undefined,
): FunctionVersion {
  const versions = versionsOf(record)
  const unknown = (what: string): FaasError =>
    new FaasError('VERSION_UNKNOWN', `${name} has no ${what}`, {
      hint: `kept are ${versions.map(({ version }) => version).join(', ')}: see \`faas versions ${name}\``,
    })
  if (reference === undefined) {
    const [, before] = versions
    if (before) return before
    throw unknown('version before the current one')
  }
  if ('version' in reference) {
    const found = versions.find(({ version }) => version === reference.version)
    if (found) return found
    throw unknown(`version ${reference.version}`)
  }
  const { imagePrefix } = reference
  const matching = versions.filter(({ image }) => hexOf(image).startsWith(imagePrefix))
  const [newest] = matching
  if (!newest) throw unknown(`version with an image ${imagePrefix}…`)
  if (matching.every(({ image }) => image === newest.image)) return newest
  throw new FaasError('OPTION_INVALID', `version: several images of ${name} begin with ${imagePrefix}`, {
    hint: 'write more of its digits, or the number of the version',
  })
}

export type Rollback = (
  name: FunctionName,
  reference: VersionReference | undefined,
  options: ReleaseOptions,
) => Promise<Deployed>

export interface RollbackDeps extends Pick<FunctionsDeps, 'registry' | 'images' | 'reconciler'> {
  readonly locks: NameLocks
  readonly release: Release
}

export function createRollback({ registry, images, reconciler, locks, release }: RollbackDeps): Rollback {
  return async (name, reference, options) => {
    using _lock = locks.take(name)
    const found = findVersion(name, recordOf(registry, name), reference)
    const held = reconciler.hold(name, found.image)
    try {
      const image = await images.load(found.image)
      const { ports, contract, options: kept, version } = found
      return await release(name, image, { ports, contract, options: kept, rollbackOf: version }, options)
    } finally {
      reconciler.retireOldVersions(name, held)
    }
  }
}
