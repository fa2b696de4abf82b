/**
 * Root file systems of functions: `images/NAME/versions/<12 hex of the image id>/rootfs` are mounts,
 * `images/NAME/rootfs` is a link to the one that serves. Everything is idempotent.
 */
import { chmod, mkdir, readdir, rename, rm, rmdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Exec } from '../host/exec.ts'
import { fsyncDirectory } from '../host/files.ts'
import { type Digest, hexOf } from '../values/digest.ts'
import type { FunctionName } from '../values/names.ts'
import type { Image } from './image.ts'
import type { Layers, OpenLayer } from './layers.ts'
import type { MountLayers } from './mount-layer.ts'
import { isMountPoint, mountOverlay, mountPointsBelow, unmount } from './mounts.ts'

export interface RootfsDeps {
  /** `FAAS_ROOT/images`. */
  readonly directory: string
  readonly baseLayer: string
  readonly scratch: string
  readonly layers: Layers
  readonly mountLayers: MountLayers
  readonly exec: Exec
}

export interface Rootfs {
  mount(name: FunctionName, image: Image): Promise<string>
  select(name: FunctionName, image: Digest): Promise<void>
  /** Unmounts and removes the versions of `name` for which `keep` is false, and the rest when none is left. */
  release(name: string, keep: (version: string) => boolean): Promise<void>
  /** All names that have anything. */
  names(): Promise<readonly string[]>
}

/** The part of an image's id that names its version of a function. */
export const versionOf = (image: Digest): string => hexOf(image).slice(0, 12)

/** The trees of an image's layers (bottom first, as everywhere), top first: each once, and none below one that hides all. */
export async function treesOf(
  layers: readonly Digest[],
  open: (layer: Digest) => Promise<OpenLayer>,
): Promise<readonly string[]> {
  const trees: string[] = []
  // Where a layer comes twice its upper place decides everything that the lower one could.
  for (const layer of new Set(layers.toReversed())) {
    const { tree, rootOpaque } = await open(layer)
    trees.push(tree)
    if (rootOpaque) break
  }
  return trees
}

export function createRootfs(deps: RootfsDeps): Rootfs {
  const { directory, baseLayer, scratch, layers, mountLayers, exec } = deps
  const versions = (name: string): string => join(directory, name, 'versions')

  return {
    async mount(name, image) {
      const home = join(versions(name), versionOf(image.id))
      const target = join(home, 'rootfs')
      await mkdir(target, { recursive: true })
      const isMounted = await isMountPoint(target)
      if (isMounted && (await mountLayers.find(image.id))) return target
      // The runtime goes this way as root of the container, which is nobody here; our umask may say otherwise.
      for (const way of [join(directory, name), versions(name), home]) await chmod(way, 0o755)
      const trees = await treesOf(image.layers, layers.open)
      const { tree } = await mountLayers.make(image, [baseLayer, ...trees])
      // Mounted by a faasd that knew of no such layer; who runs on it goes on.
      if (isMounted) unmount(target)
      await mountOverlay({ layers: [baseLayer, tree, ...trees], target, scratch }, exec)
      return target
    },

    async select(name, image) {
      const home = join(directory, name)
      const aside = join(home, '.rootfs.tmp')
      await rm(aside, { force: true })
      await symlink(join('versions', versionOf(image), 'rootfs'), aside)
      await rename(aside, join(home, 'rootfs'))
      await fsyncDirectory(home)
    },

    async release(name, keep) {
      const found = await namesIn(versions(name))
      for (const version of found.filter((each) => !keep(each))) {
        const home = join(versions(name), version)
        for (const point of await mountPointsBelow(home)) unmount(point)
        // Not recursive: should anything still be mounted, nothing is lost.
        await removeEmpty(join(home, 'rootfs'))
        await removeEmpty(home)
      }
      if (found.some(keep)) return
      await rm(join(directory, name, 'rootfs'), { force: true })
      await rm(join(directory, name, '.rootfs.tmp'), { force: true })
      await removeEmpty(versions(name))
      await removeEmpty(join(directory, name))
    },

    names: () => namesIn(directory),
  }
}

/** The directories in a directory; what else lies there is not ours. */
async function namesIn(directory: string): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** One that is not empty, or where something is mounted, is left for another time. */
async function removeEmpty(directory: string): Promise<void> {
  try {
    await rmdir(directory)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (!['ENOENT', 'ENOTEMPTY', 'EEXIST', 'EBUSY'].includes(code)) throw error
  }
}
