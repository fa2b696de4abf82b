/**
 * Unpacked layers, by diff ID: `layers/<hex>/tree` is a layer's files, owned by ids of the user namespace,
 * `layers/<hex>/layer.json` what is known of them. A layer is there whole or not at all, and never changes.
 */
import { chmod, chown, lstat, mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fsyncDirectory } from '../host/files.ts'
import { type Digest, digestOfHex, hexOf } from '../values/digest.ts'
import { ID_BASE } from '../values/id-map.ts'
import type { LayerReport } from './layer-job.ts'

export interface OpenLayer {
  readonly tree: string
  /** Whether it hides all layers below. */
  readonly rootOpaque: boolean
}

export interface Layers {
  has(layer: Digest): Promise<boolean>
  open(layer: Digest): Promise<OpenLayer>
  /** Takes a finished directory ({@link stageLayer}, synced to disk) into the store; one that is there already stays. */
  adopt(layer: Digest, staged: string): Promise<void>
  /** Makes the adopted layers' names durable. */
  sync(): Promise<void>
  list(): Promise<readonly Digest[]>
  /** Moves a layer out of the store, to be removed there at leisure. */
  evict(layer: Digest, destination: string): Promise<void>
}

const treeName = 'tree'
const reportName = 'layer.json'

export function createLayers(directory: string): Layers {
  const pathOf = (layer: Digest): string => join(directory, hexOf(layer))
  const has = (layer: Digest): Promise<boolean> => exists(pathOf(layer))
  return {
    has,
    open: (layer) => openLayer(pathOf(layer)),
    async adopt(layer, staged) {
      if (!(await has(layer))) await rename(staged, pathOf(layer))
    },
    sync: () => fsyncDirectory(directory),
    async list() {
      const names = await readdir(directory)
      return names.flatMap((name) => (/^[0-9a-f]{64}$/.test(name) ? [digestOfHex(name)] : []))
    },
    evict: (layer, destination) => rename(pathOf(layer), destination),
  }
}

/** Fills `directory`, which must not exist, with a layer: `unpack` gets the empty tree. */
export async function stageLayer(
  directory: string,
  unpack: (tree: string) => Promise<LayerReport>,
): Promise<LayerReport> {
  const tree = join(directory, treeName)
  await mkdir(directory, { mode: 0o700 })
  await mkdir(tree)
  await chmod(tree, 0o755)
  await chown(tree, ID_BASE, ID_BASE)
  const report = await unpack(tree)
  await writeFile(join(directory, reportName), `${JSON.stringify(report)}\n`, { mode: 0o600 })
  return report
}

/** A layer in the store, or one that {@link stageLayer} has filled. */
export async function openLayer(directory: string): Promise<OpenLayer> {
  const report = JSON.parse(await readFile(join(directory, reportName), 'utf8')) as LayerReport
  return { tree: join(directory, treeName), rootOpaque: report.rootOpaque }
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}
