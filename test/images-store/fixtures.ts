/** Stores in temporary directories, and small archives built in memory: well-formed ones, and with any part replaced. */
import { createHash } from 'node:crypto'
import { chmod, lstat, mkdtemp, readdir, readFile, readlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { exec } from '../../src/host/exec.ts'
import { goArchitecture } from '../../src/images/image-config.ts'
import type { ImageLimits } from '../../src/images/limits.ts'
import { mountPointsBelow } from '../../src/images/mounts.ts'
import { createImageStore, type ImageStore } from '../../src/images/store.ts'
import { renderTar, type TarEntry } from '../images/tar.ts'

/** For the `skip` option of a test. */
export const needsRoot =
  process.getuid?.() === 0 ? false : 'needs root: layers are unpacked in a user namespace'

export interface TestStore {
  readonly root: string
  readonly store: ImageStore
  /** Where a layer's files are. */
  tree(layer: string): string
}

/** A store that is gone, with all its mounts, when the test ends. */
export async function createTestStore(t: TestContext, limits: Partial<ImageLimits> = {}): Promise<TestStore> {
  const root = await createDirectory(t)
  const store = await createImageStore({ root, exec, limits })
  return { root, store, tree: (layer) => join(root, 'store', 'layers', layer.replace('sha256:', ''), 'tree') }
}

/** A directory that is gone, with all that is mounted in it, when the test ends. */
export async function createDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'faasd-images-'))
  await chmod(directory, 0o755)
  t.after(async () => {
    for (const point of await mountPointsBelow(directory)) await exec('umount', ['--lazy', point])
    await exec('rm', ['-rf', '--one-file-system', directory])
  })
  return directory
}

export const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex')

export const thisArchitecture = goArchitecture(process.arch)

/** A config for layers that are given uncompressed. */
export const configOf = (
  layers: readonly Uint8Array[],
  more: object = {},
  architecture = thisArchitecture,
): Buffer =>
  Buffer.from(
    JSON.stringify({
      architecture,
      os: 'linux',
      config: { Cmd: ['/hello'] },
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => `sha256:${sha256(layer)}`) },
      ...more,
    }),
  )

export interface DockerImage {
  readonly layers: readonly Uint8Array[]
  readonly tags?: readonly string[]
  readonly config?: Buffer
}

/** The entries of the form before Docker 25: a directory a layer. */
export function legacyEntries(images: readonly DockerImage[]): TarEntry[] {
  const entries: TarEntry[] = []
  const manifest = images.map(({ layers, tags = [], config = configOf(layers) }, image) => {
    const name = `${sha256(config)}.json`
    entries.push({ path: name, content: config })
    const names = layers.map((layer, index) => {
      const directory = sha256(`${image}/${index}`)
      entries.push({ path: `${directory}/`, type: 'directory' })
      entries.push({ path: `${directory}/VERSION`, content: '1.0' })
      entries.push({ path: `${directory}/layer.tar`, content: layer })
      return `${directory}/layer.tar`
    })
    return { Config: name, RepoTags: tags, Layers: names }
  })
  return [...entries, { path: 'manifest.json', content: JSON.stringify(manifest) }]
}

export const legacyArchive = (...images: DockerImage[]): Buffer => renderTar(legacyEntries(images))

/** One layer, from its entries. */
export const layerOf = (...entries: TarEntry[]): Buffer => renderTar(entries)

/** An image of one layer. */
export const archiveOfLayer = (...entries: TarEntry[]): Buffer =>
  legacyArchive({ layers: [layerOf(...entries)] })

/** A body in chunks as a socket might give them. */
export async function* body(bytes: Uint8Array, chunkBytes = 65536): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes)
}

/** Everything below a directory, one line a file: kind, mode, owner and content. Node's own cache is left out. */
export async function snapshot(directory: string): Promise<string[]> {
  const lines: string[] = []
  const walk = async (path: string, name: string): Promise<void> => {
    if (name === './store/cache') return
    const found = await lstat(path)
    const kind = found.isDirectory() ? 'd' : found.isSymbolicLink() ? 'l' : found.isFile() ? 'f' : 'o'
    const content = kind === 'f' ? sha256(await readFile(path)) : kind === 'l' ? await readlink(path) : ''
    lines.push(`${kind} ${(found.mode & 0o7777).toString(8)} ${found.uid}:${found.gid} ${name} ${content}`)
    if (kind === 'd')
      for (const each of (await readdir(path)).sort()) await walk(join(path, each), `${name}/${each}`)
  }
  await walk(directory, '.')
  return lines
}
