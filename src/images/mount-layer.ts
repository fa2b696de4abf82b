/**
 * A layer of our own above each image's: directories that the image lacks and something is mounted on, and the
 * places of the platform's files in /etc. Below `FAAS_ROOT/store/mount-layers`:
 *
 *     HEX/tree/             the layer, by the image's id         HEX/points.json     what was found ({@link MountPoints})
 *
 * Made when an image is first mounted, in one piece or not at all; it never changes and goes with the image.
 * It is synced before it takes its name.
 */
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Exec } from '../host/exec.ts'
import { type Digest, digestOfHex, hexOf } from '../values/digest.ts'
import { hostId, ID_BASE } from '../values/id-map.ts'
import type { Image } from './image.ts'
import { findMountPoints, type MountPoints } from './mount-points.ts'
import { mountOverlay, mountPointsBelow, unmount } from './mounts.ts'

export interface MountLayer {
  readonly tree: string
  readonly points: MountPoints
}

export interface MountLayers {
  /** The layer of an image, if it has been made. */
  find(image: Digest): Promise<MountLayer | undefined>
  /** Makes the layer of an image whose own trees, top first, are `trees`. */
  make(image: Image, trees: readonly string[]): Promise<MountLayer>
  list(): Promise<readonly Digest[]>
  remove(image: Digest): Promise<void>
  /** Removes what a crash left in the middle of {@link make}. */
  cleanUp(): Promise<void>
}

/** Files of /etc that every container has its own of; the runtime mounts the first two on these. */
export const platformFiles = {
  hosts: 'hosts',
  hostname: 'hostname',
  /** As it is here: there is no network, so no server to name. */
  resolver: 'resolv.conf',
} as const
const resolverText = '# no network, so no name server\n'

const syncTimeoutMs = 10 * 60_000

const directory = z.object({ path: z.string(), uid: z.number(), gid: z.number(), mode: z.number() })
const content = z.object({ bytes: z.number(), entries: z.number(), copyable: z.boolean() })
const pointsShape = z.object({
  points: z.array(directory.extend({ volume: z.boolean(), content })),
  directories: z.array(directory),
  etc: z.string().nullable(),
})

export interface MountLayersDeps {
  /** `FAAS_ROOT/store/mount-layers`. */
  readonly root: string
  /** For the length of a call. */
  readonly scratch: string
  readonly exec: Exec
}

export function createMountLayers({ root, scratch, exec }: MountLayersDeps): MountLayers {
  const pathOf = (image: Digest): string => join(root, hexOf(image))
  const find = async (image: Digest): Promise<MountLayer | undefined> => {
    const points = await readPoints(join(pathOf(image), 'points.json'))
    return points && { tree: join(pathOf(image), 'tree'), points }
  }

  return {
    find,
    async make({ id, config }, trees) {
      const found = await find(id)
      if (found) return found
      const aside = await mkdtemp(join(scratch, 'look-'))
      try {
        const view = join(aside, 'root')
        await mkdir(view)
        await mountOverlay({ layers: trees, target: view, scratch }, exec)
        const points = await findMountPoints(view, config, ID_BASE)
        unmount(view)
        const made = join(aside, 'layer')
        await writeLayer(made, points)
        await exec('sync', ['--file-system', made], { timeoutMs: syncTimeoutMs })
        await rm(pathOf(id), { recursive: true, force: true })
        await rename(made, pathOf(id))
        return { tree: join(pathOf(id), 'tree'), points }
      } finally {
        await removeWithMounts(aside)
      }
    },
    async list() {
      const names = await readdir(root)
      return names.flatMap((name) => (/^[0-9a-f]{64}$/.test(name) ? [digestOfHex(name)] : []))
    },
    remove: (image) => rm(pathOf(image), { recursive: true, force: true }),
    async cleanUp() {
      for (const name of await readdir(scratch)) await removeWithMounts(join(scratch, name))
    },
  }
}

async function removeWithMounts(path: string): Promise<void> {
  for (const point of await mountPointsBelow(path)) unmount(point)
  await rm(path, { recursive: true, force: true })
}

async function writeLayer(path: string, points: MountPoints): Promise<void> {
  const tree = join(path, 'tree')
  await mkdir(tree, { recursive: true })
  await own(tree, { uid: 0, gid: 0, mode: 0o755 })
  // Parents come first, and the tree is new: no name in it leads anywhere else.
  for (const { path: inner, ...owner } of points.directories) {
    await mkdir(join(tree, inner))
    await own(join(tree, inner), owner)
  }
  if (points.etc !== undefined) {
    for (const name of Object.values(platformFiles)) {
      const file = join(tree, points.etc, name)
      await writeFile(file, name === platformFiles.resolver ? resolverText : '')
      await own(file, { uid: 0, gid: 0, mode: 0o644 })
    }
  }
  await writeFile(join(path, 'points.json'), `${JSON.stringify({ ...points, etc: points.etc ?? null })}\n`)
}

async function own(
  path: string,
  { uid, gid, mode }: { readonly uid: number; readonly gid: number; readonly mode: number },
): Promise<void> {
  await chown(path, hostId(uid), hostId(gid))
  await chmod(path, mode)
}

async function readPoints(path: string): Promise<MountPoints | undefined> {
  try {
    const { etc, ...rest } = pointsShape.parse(JSON.parse(await readFile(path, 'utf8')))
    return { ...rest, etc: etc ?? undefined }
  } catch {
    // absent, or not ours
    return undefined
  }
}
