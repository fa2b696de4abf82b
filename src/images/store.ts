/**
 * The image store. On disk, below `FAAS_ROOT`:
 *
 *     store/layers/HEX/        a layer, by diff ID         store/images/HEX.json   an image, by id
 *     store/base-layer/        our own top layer           store/staging/ID/       work that is not done
 *     store/mount-layers/HEX/  one below it for an image   store/mounts/           for the length of a mount
 *     store/cache/             of Node: safe to delete
 *     images/NAME/versions/VERSION/rootfs                  a mounted image
 *
 * A layer is moved into its place whole and synced, an image's record is written last: what a crash leaves behind
 * is in staging, or is a layer that no record names, and the next {@link ImageStore.collect} removes it.
 * One process at a time; calls may overlap in any way.
 */
import { chmod, chown, mkdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import type { Exec } from '../host/exec.ts'
import { type Reach, reachNothing } from '../host/failpoints.ts'
import type { Digest } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import { ID_BASE } from '../values/id-map.ts'
import type { FunctionName } from '../values/names.ts'
import { ensureBaseLayer } from './base-layer.ts'
import { createCollection, type Needed } from './collect.ts'
import type { Image } from './image.ts'
import { type ResolvedUser, resolveImageUser } from './image-user.ts'
import { createLayers } from './layers.ts'
import { defaultLimits, type ImageLimits } from './limits.ts'
import { createMountLayers } from './mount-layer.ts'
import type { MountPoints } from './mount-points.ts'
import { type ReceiveOptions, type StagedImage, stageImage } from './receive.ts'
import { createImageRecords } from './record.ts'
import { createRootfs, versionOf } from './rootfs.ts'

export interface ImageStore {
  /**
   * Streams a `docker save` body to disk, checks all of it, unpacks the layers that are new, syncs, and stores the
   * record. Nothing is left of a failure. The body stays the caller's; it is not destroyed.
   * The image is spared by {@link collect} until the caller has had its turn with it, and from then on when `live`
   * names it. Throws ARCHIVE_*, IMAGE_*, DISK_FULL, COMMAND_*; ARCHIVE_TRUNCATED when the signal aborts.
   */
  receive(body: AsyncIterable<Uint8Array>, options?: ReceiveOptions): Promise<Image>
  /** Throws NOT_FOUND, REGISTRY_CORRUPT, STATE_TOO_NEW. */
  load(id: Digest): Promise<Image>
  /** Mounts the read-only root of an image for a function, if it is not mounted, and answers its path. */
  mountRootfs(name: FunctionName, image: Image): Promise<string>
  /** What in an image's root can be mounted on; known once it has been mounted. Throws NOT_FOUND before. */
  mountPoints(image: Image): Promise<MountPoints>
  /** Points `images/NAME/rootfs` at a mounted version, atomically. */
  selectRootfs(name: FunctionName, image: Digest): Promise<void>
  /** The ids that the image's USER means, by the image's own account files. Throws IMAGE_CONFIG_INVALID. */
  resolveUser(rootfs: string, user: string): Promise<ResolvedUser>
  /** Unmounts the versions of `name` other than `keep`; without `keep` removes `images/NAME` as well. */
  releaseRootfs(name: FunctionName, keep?: Digest): Promise<void>
  /**
   * Removes the layers, records, mounts and staging directories that neither what `look` names nor a receive under way
   * needs. `look` is called in its turn, when nothing is put in or taken out. Run at start and after each change.
   */
  collect(look: () => Needed): Promise<void>
}

export interface ImageStoreDeps {
  /** `FAAS_ROOT`. */
  readonly root: string
  readonly exec: Exec
  readonly limits?: Partial<ImageLimits>
  /** D2 to D7 (docs/ARCHITECTURE.md). */
  readonly reach?: Reach
}

export async function createImageStore({
  root: givenRoot,
  exec,
  limits = {},
  reach = reachNothing,
}: ImageStoreDeps): Promise<ImageStore> {
  await mkdir(givenRoot, { recursive: true, mode: 0o755 })
  // Mount points are known by their real paths.
  const root = await realpath(givenRoot)
  const at = (...parts: string[]): string => join(root, ...parts)
  const paths = {
    staging: at('store', 'staging'),
    layers: at('store', 'layers'),
    records: at('store', 'images'),
    mountLayers: at('store', 'mount-layers'),
    scratch: at('store', 'mounts'),
  }
  for (const directory of Object.values(paths)) await mkdir(directory, { recursive: true, mode: 0o700 })
  // Layers are read by overlayfs with our rights; nobody else has to.
  await chmod(at('store'), 0o700)
  // Roots of containers are reached through here by root of a container, who is in this group, and by no local user.
  await mkdir(at('images'), { recursive: true, mode: 0o710 })
  await chown(at('images'), 0, ID_BASE)
  await chmod(at('images'), 0o710)
  await ensureBaseLayer(at('store', 'base-layer'))

  const layers = createLayers(paths.layers)
  const records = createImageRecords(paths.records)
  const mountLayers = createMountLayers({ root: paths.mountLayers, scratch: paths.scratch, exec })
  await mountLayers.cleanUp()
  const rootfs = createRootfs({
    directory: at('images'),
    baseLayer: at('store', 'base-layer'),
    scratch: paths.scratch,
    layers,
    mountLayers,
    exec,
  })
  const collection = createCollection({
    stagingRoot: paths.staging,
    layers,
    records,
    mountLayers,
    rootfs,
    exec,
  })

  async function commit({ image, newLayers }: StagedImage, hold: (image: Digest) => void): Promise<Image> {
    return collection.exclusively(async () => {
      for (const [layer, staged] of newLayers) await layers.adopt(layer, staged)
      await layers.sync()
      hold(image.id)
      await records.write(image)
      await reach('D7')
      return image
    })
  }

  return {
    async receive(body, options = {}) {
      await using work = await collection.beginWork()
      await reach('D2')
      try {
        const staged = await stageImage(body, options, {
          staging: work.directory,
          cache: at('store', 'cache'),
          layers,
          limits: { ...defaultLimits, ...limits },
          exec,
          claim: work.claim,
          reach,
        })
        return await commit(staged, work.hold)
      } catch (error) {
        throw asReceiveError(error, options.signal)
      }
    },
    load: (id) => records.read(id),
    mountRootfs: (name, image) => collection.exclusively(() => rootfs.mount(name, image)),
    async mountPoints({ id }) {
      const layer = await mountLayers.find(id)
      if (layer) return layer.points
      throw new FaasError('NOT_FOUND', `the image ${id} has never been mounted`)
    },
    selectRootfs: (name, image) => rootfs.select(name, image),
    resolveUser: resolveImageUser,
    releaseRootfs(name, keep) {
      const kept = keep === undefined ? undefined : versionOf(keep)
      return collection.exclusively(() => rootfs.release(name, (version) => version === kept))
    },
    collect: collection.collect,
  }
}

function asReceiveError(error: unknown, signal: AbortSignal | undefined): unknown {
  if (error instanceof FaasError) return error
  if (signal?.aborted) return new FaasError('ARCHIVE_TRUNCATED', 'the deploy was cancelled', { cause: error })
  const code = (error as NodeJS.ErrnoException).code
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error
  return new FaasError('DISK_FULL', 'no space left to store the image', {
    hint: 'remove functions that are no longer needed, or give the platform more disk',
    cause: error,
  })
}
