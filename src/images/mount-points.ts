/**
 * Where an image can be written although its root is read-only: directories that get a tmpfs in each instance, and
 * what has to be made so that they, the working directory and the platform's own files in /etc have a place.
 *
 * The paths are the image's and so is what lies there: links are followed here, within the root, and never by the
 * kernel. The tree is read-only and nobody changes it, so what is seen stays true. What leads nowhere, loops, or ends
 * in something that is no directory is left out.
 */
import type { Stats } from 'node:fs'
import { lstat, opendir, readlink } from 'node:fs/promises'
import { join } from 'node:path'

/** A directory, its owner as the container numbers it, its permission bits with setgid and the sticky bit. */
export interface ImageDirectory {
  /** Absolute, without links. */
  readonly path: string
  readonly uid: number
  readonly gid: number
  readonly mode: number
}

/** What an image has in a directory, as far as copying it into a tmpfs goes. */
export interface Content {
  readonly bytes: number
  readonly entries: number
  /** False with a FIFO, a socket or a device in it, or with more than {@link maxEntries}. */
  readonly copyable: boolean
}

export interface MountPoint extends ImageDirectory {
  /** Whether the image asks for it with VOLUME. */
  readonly volume: boolean
  readonly content: Content
}

export interface MountPoints {
  /** In the order of their paths. One lies in another one only where nothing is copied into the outer one. */
  readonly points: readonly MountPoint[]
  /** Directories that a layer above the image has to have, parents first: missing ones, and those on the way. */
  readonly directories: readonly ImageDirectory[]
  /** Where /etc really is; undefined where the image has something else there. */
  readonly etc: string | undefined
}

export interface Wanted {
  readonly volumes: readonly string[]
  readonly workingDir: string
}

/** Entries of a volume; those of a tmpfs are bounded as well (src/runtime/bundle.ts). */
export const maxEntries = 16_000
/** What may be copied at each start without having been asked for. */
const usualContent = { bytes: 4 * 1024 * 1024, entries: 1000 } as const

/** Where servers write their pids, sockets and scratch files. `/tmp` and `/dev/shm` are in every container. */
const always = [
  { path: '/run', mode: 0o755 },
  { path: '/var/tmp', mode: 0o1777 },
] as const
/** The same, where the image has them. */
const usual = ['/var/run', '/var/cache', '/var/log'] as const

const maxLinks = 40
const maxPathBytes = 1024
const maxNameBytes = 255

/** Looks at the mounted root of an image. `idBase` is the host's id of the container's root. */
export async function findMountPoints(root: string, wanted: Wanted, idBase: number): Promise<MountPoints> {
  const directories = new Map<string, ImageDirectory>()
  const find = async (path: string, mode?: number): Promise<ImageDirectory | undefined> => {
    const found = await resolveDirectory(root, path)
    if (!found || (found.missing && mode === undefined)) return undefined
    const way = await describeWay(root, found.path, { mode: mode ?? 0o755, idBase })
    if (found.missing && !isTemporary(found.path)) for (const each of way) directories.set(each.path, each)
    return way.at(-1) ?? { path: '/', uid: 0, gid: 0, mode: 0o755 }
  }

  const points = new Map<string, MountPoint>()
  const emptied = new Set<string>()
  const add = async (
    directory: ImageDirectory | undefined,
    kind: 'volume' | 'always' | 'usual',
  ): Promise<void> => {
    if (!directory || isOurs(directory.path) || points.has(directory.path)) return
    const { path } = directory
    const content = isTemporary(path) ? nothing : await surveyContent(join(root, path))
    const isCopied = kind === 'volume' || isSmall(content)
    if (!isCopied && kind === 'usual') return
    // What a build left in /run is no more missed than after a reboot.
    if (!isCopied || isTemporary(path)) emptied.add(path)
    points.set(path, { ...directory, volume: kind === 'volume', content: isCopied ? content : nothing })
  }
  for (const path of wanted.volumes) await add(await find(path, 0o755), 'volume')
  for (const { path, mode } of always) await add(await find(path, mode), 'always')
  for (const path of usual) await add(await find(path), 'usual')

  await find(wanted.workingDir, 0o755)
  const etc = await find('/etc', 0o755)
  const hasEtc = etc !== undefined && !isOurs(etc.path) && !isTemporary(etc.path)
  if (hasEtc) {
    for (const each of await describeWay(root, etc.path, { mode: 0o755, idBase }))
      directories.set(each.path, each)
  }

  const isBelow = (path: string, outer: string): boolean => path.startsWith(`${outer}/`)
  const made = (point: MountPoint): number =>
    [...directories.keys()].filter((path) => isBelow(path, point.path)).length
  return {
    // What lies below another one is copied with it, the directories that are made here too.
    points: [...points.values()]
      .filter(({ path }) => ![...points.keys()].some((outer) => isBelow(path, outer) && !emptied.has(outer)))
      .map((point) =>
        emptied.has(point.path)
          ? point
          : { ...point, content: { ...point.content, entries: point.content.entries + made(point) } },
      )
      .toSorted(byPath),
    directories: [...directories.values()].filter(({ path }) => !isOurs(path)).toSorted(byPath),
    etc: hasEtc ? etc.path : undefined,
  }
}

const nothing: Content = { bytes: 0, entries: 0, copyable: true }
const isSmall = ({ bytes, entries, copyable }: Content): boolean =>
  copyable && bytes <= usualContent.bytes && entries <= usualContent.entries

/** Parents come before what lies in them. */
const byPath = ({ path: a }: ImageDirectory, { path: b }: ImageDirectory): number =>
  a === b ? 0 : `${a}/` < `${b}/` ? -1 : 1

/** What the platform mounts itself, and the root as a whole. */
const isOurs = (path: string): boolean =>
  path === '/tmp' || /^\/(?:$|(?:proc|sys|dev|control\.sock)(?:\/|$))/.test(path)
/** In a tmpfs of the platform, which hides what the image has there: the runtime makes directories in it. */
const isTemporary = (path: string): boolean => path.startsWith('/tmp/')

interface ResolvedPath {
  readonly path: string
  readonly missing: boolean
}

/** The directory that a path leads to, there or not; undefined where it leads to anything else. */
export async function resolveDirectory(root: string, path: string): Promise<ResolvedPath | undefined> {
  let at: string[] = []
  let missing = false
  let links = 0
  // The next part is the last element.
  const left = path.split('/').toReversed()
  for (let part = left.pop(); part !== undefined; part = left.pop()) {
    if (part === '' || part === '.') continue
    if (part === '..') {
      // Behind a directory that is not there, nobody can say what that means.
      if (missing) return undefined
      at.pop()
      continue
    }
    at.push(part)
    if (Buffer.byteLength(part) > maxNameBytes || Buffer.byteLength(at.join('/')) > maxPathBytes)
      return undefined
    if (missing) continue
    const here = join(root, ...at)
    const found = await lstatIfExists(here)
    if (found === undefined) missing = true
    else if (found.isSymbolicLink()) {
      if (++links > maxLinks) return undefined
      const target = await readlink(here)
      if (target.startsWith('/')) at = []
      else at.pop()
      left.push(...target.split('/').toReversed())
    } else if (!found.isDirectory()) return undefined
  }
  return { path: `/${at.join('/')}`, missing }
}

/** Every directory on the way to `path`, which has no links; missing ones belong to root, the last one with `mode`. */
async function describeWay(
  root: string,
  path: string,
  { mode, idBase }: { readonly mode: number; readonly idBase: number },
): Promise<readonly ImageDirectory[]> {
  const names = path.split('/').filter((name) => name !== '')
  const way: ImageDirectory[] = []
  for (const depth of names.keys()) {
    const here = names.slice(0, depth + 1)
    const found = await lstatIfExists(join(root, ...here))
    const missingMode = depth === names.length - 1 ? mode : 0o755
    way.push({
      path: `/${here.join('/')}`,
      uid: found ? found.uid - idBase : 0,
      gid: found ? found.gid - idBase : 0,
      mode: found ? found.mode & 0o3777 : missingMode,
    })
  }
  return way
}

/** Counts what is in a directory, if it is there. */
async function surveyContent(directory: string): Promise<Content> {
  let bytes = 0
  let entries = 0
  const left = [directory]
  for (let here = left.pop(); here !== undefined; here = left.pop()) {
    for await (const name of namesIn(here)) {
      const path = Buffer.concat([Buffer.from(`${here}/`), name])
      const found = await lstat(path)
      entries += 1
      if (found.isFile()) bytes += found.size
      if (entries > maxEntries) return { bytes, entries, copyable: false }
      // A name that is no text is not worth following: such a directory is as one that cannot be copied.
      const isText = Buffer.from(name.toString()).equals(name)
      if (found.isDirectory() && isText) left.push(`${here}/${name.toString()}`)
      else if (!(found.isFile() || found.isSymbolicLink()) || !isText)
        return { bytes, entries, copyable: false }
    }
  }
  return { bytes, entries, copyable: true }
}

/** One by one: a layer may have millions of names in one directory. Their bytes, since not every name is text. */
async function* namesIn(directory: string): AsyncGenerator<Buffer> {
  try {
    // Node gives names as bytes for this encoding; its types know of text only.
    const entries = await opendir(directory, { encoding: 'buffer' as BufferEncoding })
    for await (const { name } of entries) yield Buffer.from(name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

async function lstatIfExists(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
