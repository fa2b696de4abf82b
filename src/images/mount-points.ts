/**
 * Where an image can have a tmpfs of its own: directories that are there, looked at without following links.
 * The tree is read-only and nobody changes it, so what is seen stays true.
 */
import { lstat } from 'node:fs/promises'
import { join, posix } from 'node:path'

/** A directory of a root, with the owner (as the container numbers it) and permissions that a mount there must have. */
export interface MountPoint {
  readonly path: string
  readonly uid: number
  readonly gid: number
  /** Permission bits with the sticky bit. */
  readonly mode: number
}

/** What the platform mounts itself, and what would hide the image from itself. */
const notOurs = /^\/(?:proc|sys|dev|tmp|control\.sock|etc|usr|bin|sbin|lib|lib64)?(?:\/|$)/

/**
 * Those of `paths` that are directories of the root, each once; an inner one below an outer one is left out, as it
 * lies on the outer's tmpfs. `idBase` is the host's id of the container's root.
 */
export async function findMountPoints(
  rootfs: string,
  paths: readonly string[],
  idBase: number,
): Promise<readonly MountPoint[]> {
  const wanted = [...new Set(paths.map((path) => posix.normalize(`/${path}`).replace(/\/$/, '')))].sort()
  const found: MountPoint[] = []
  for (const path of wanted) {
    if (notOurs.test(`${path}/`) && !path.startsWith('/usr/')) continue
    if (found.some((outer) => path.startsWith(`${outer.path}/`))) continue
    const point = await look(rootfs, path, idBase)
    if (point) found.push(point)
  }
  return found
}

async function look(rootfs: string, path: string, idBase: number): Promise<MountPoint | undefined> {
  const names = path.split('/').slice(1)
  for (let depth = 1; depth <= names.length; depth++) {
    const stats = await lstat(join(rootfs, ...names.slice(0, depth))).catch(() => undefined)
    if (!stats?.isDirectory()) return undefined
    if (depth === names.length) {
      return { path, uid: stats.uid - idBase, gid: stats.gid - idBase, mode: stats.mode & 0o1777 }
    }
  }
  return undefined
}
