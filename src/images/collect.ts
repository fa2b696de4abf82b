/**
 * What may be removed and what may not. A layer, a record or a mount is needed by a live image, or by a
 * receive under way; everything else goes. Taking things out of the store and putting
 * them in happens one at a time, so that nothing is taken away between the look at it and its use.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Exec } from '../host/exec.ts'
import type { Digest } from '../values/digest.ts'
import type { FunctionName } from '../values/names.ts'
import type { Layers } from './layers.ts'
import type { MountLayers } from './mount-layer.ts'
import type { ImageRecords } from './record.ts'
import { type Rootfs, versionOf } from './rootfs.ts'

export interface CollectionDeps {
  readonly stagingRoot: string
  readonly layers: Layers
  readonly records: ImageRecords
  readonly mountLayers: MountLayers
  readonly rootfs: Rootfs
  readonly exec: Exec
}

/** A receive under way. Disposing of it removes its directory and gives up its claims and its hold. */
export interface Work extends AsyncDisposable {
  readonly directory: string
  claim(layers: ReadonlySet<Digest>): Promise<ReadonlySet<Digest>>
  /** Spares an image. */
  readonly hold: (image: Digest) => void
}

export interface Collection {
  exclusively<T>(task: () => Promise<T>): Promise<T>
  beginWork(): Promise<Work>
  /** `look` is called when nothing is put in or taken out: what it answers cannot be out of date. */
  collect(look: () => Needed): Promise<void>
}

/** What the platform needs now. */
export interface Needed {
  /** Images whose records and layers stay. */
  readonly live: ReadonlySet<Digest>
  /** Functions that have roots at all. */
  readonly names: ReadonlySet<FunctionName>
  /** Images whose mounts stay; those of `live` where it is left out. */
  readonly mounted?: ReadonlySet<Digest>
}

const removeTimeoutMs = 10 * 60_000

export function createCollection(deps: CollectionDeps): Collection {
  const { stagingRoot, layers, records, mountLayers, rootfs, exec } = deps
  const working = new Set<string>()
  const claims = new Set<ReadonlySet<Digest>>()
  const holds = new Map<string, Digest>()
  const exclusively = createTurns()

  // A program, because a layer may have a hundred thousand files, under names that are no text.
  const remove = (path: string) =>
    exec('rm', ['--recursive', '--force', '--one-file-system', '--', path], { timeoutMs: removeTimeoutMs })

  /** Moves what nothing needs out of the store. */
  async function evict({ live, names, mounted = live }: Needed): Promise<void> {
    const spared = new Set([...live, ...holds.values()])
    const versions = new Set([...mounted].map(versionOf))
    for (const name of await rootfs.names()) {
      await rootfs.release(
        name,
        (version) => (names as ReadonlySet<string>).has(name) && versions.has(version),
      )
    }
    for (const image of await records.list()) if (!spared.has(image)) await records.remove(image)
    for (const image of await mountLayers.list()) if (!spared.has(image)) await mountLayers.remove(image)
    const needed = await layersOf(spared)
    if (needed === undefined) return
    for (const claim of claims) for (const layer of claim) needed.add(layer)
    for (const layer of await layers.list()) {
      if (!needed.has(layer)) await layers.evict(layer, join(stagingRoot, newId()))
    }
    await layers.sync()
  }

  /** Undefined when a record cannot be read: then nobody knows which layers it needs. */
  async function layersOf(images: ReadonlySet<Digest>): Promise<Set<Digest> | undefined> {
    const known = new Set(await records.list())
    const needed = new Set<Digest>()
    for (const image of images) {
      if (!known.has(image)) continue
      const record = await records.read(image).catch(() => undefined)
      if (record === undefined) return undefined
      for (const layer of record.layers) needed.add(layer)
    }
    return needed
  }

  return {
    exclusively,

    async beginWork() {
      const id = newId()
      const directory = join(stagingRoot, id)
      const own: ReadonlySet<Digest>[] = []
      working.add(id)
      await mkdir(directory, { mode: 0o700 })
      return {
        directory,
        claim: (wanted) =>
          exclusively(async () => {
            own.push(wanted)
            claims.add(wanted)
            const present = await Promise.all([...wanted].map((layer) => layers.has(layer)))
            return new Set([...wanted].filter((_, index) => present[index]))
          }),
        hold: (image) => void holds.set(id, image),
        async [Symbol.asyncDispose]() {
          for (const claim of own) claims.delete(claim)
          // What cannot be removed now is removed by the next collection.
          await remove(directory).catch(() => {})
          working.delete(id)
          // Not before whoever waits for the image has had a turn to name it as live.
          setImmediate(() => holds.delete(id))
        },
      }
    },

    async collect(look) {
      await exclusively(() => evict(look()))
      const left = await readdir(stagingRoot)
      for (const id of left.filter((each) => !working.has(each))) await remove(join(stagingRoot, id))
    },
  }
}

const newId = (): string => randomBytes(8).toString('hex')

/** Runs tasks one after another, in the order of the calls. */
function createTurns(): <T>(task: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (task) => {
    const turn = last.then(task)
    last = turn.catch(() => {})
    return turn
  }
}
