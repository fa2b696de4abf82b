/**
 * The entries of a layer (OCI image layer specification, layer.md) as they may be unpacked: names resolved to paths
 * without links, set-id bits gone, ids and times in range, whiteouts told from files, devices left out.
 * Failures: IMAGE_LAYER_INVALID, IMAGE_TOO_LARGE.
 */
import { FaasError } from '../values/errors.ts'
import { ByteReader } from './byte-reader.ts'
import { invalid, LayerLinks, partsOf, shownPath } from './layer-paths.ts'
import { TarError } from './tar-header.ts'
import { type TarEntry, TarReader } from './tar-reader.ts'

export type LayerEntry =
  | { readonly kind: 'file'; readonly path: string; readonly attributes: Attributes; readonly size: number }
  | { readonly kind: 'directory' | 'fifo'; readonly path: string; readonly attributes: Attributes }
  | {
      readonly kind: 'symlink' | 'hardlink'
      readonly path: string
      readonly attributes: Attributes
      readonly target: string
    }
  /** `path` is hidden in the layers below. */
  | { readonly kind: 'whiteout'; readonly path: string }
  /** Everything in the directory `path` is hidden in the layers below. */
  | { readonly kind: 'opaque'; readonly path: string }

export interface Attributes {
  /** Permission and sticky bits. Set-id bits are dropped: nothing in a container may gain by them. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeSeconds: number
}

export interface LayerBounds {
  readonly maxEntries: number
  /** How many symbolic links may be remembered. */
  readonly maxLinks: number
  /** Bytes of all files together. */
  readonly maxFileBytes: number
}

const whiteoutPrefix = '.wh.'
const opaqueName = '.wh..wh..opq'
/** Names that AUFS kept for itself, in layers of old. */
const aufsPrefix = '.wh..wh.'
const modeMask = 0o1777
/** Owners that the user namespace has no id for; the kernel shows such owners as this id as well. */
const overflowId = 65534
const maxId = 65535
const maxTimeSeconds = 2 ** 33 - 1
/** A symbolic link's target is stored in one page. */
const maxTargetBytes = 4095

/** Reads a layer once. After an entry of kind `file`, {@link content} hands out its bytes. */
export class LayerReader {
  readonly #bytes: ByteReader
  readonly #tar: TarReader
  readonly #bounds: LayerBounds
  readonly #links: LayerLinks
  readonly #skippedDevices = new Set<string>()
  #entries = 0
  #fileBytes = 0

  constructor(source: AsyncIterable<Uint8Array>, bounds: LayerBounds) {
    this.#bytes = new ByteReader(source)
    this.#tar = new TarReader(this.#bytes)
    this.#bounds = bounds
    this.#links = new LayerLinks(bounds.maxLinks)
  }

  /** The next entry; undefined after the last, when the rest of the stream has been read as well. */
  async next(): Promise<LayerEntry | undefined> {
    for (;;) {
      const entry = await this.#nextInTar()
      if (entry === undefined) {
        // What follows belongs to the digest and to nothing else.
        while ((await this.#bytes.some(1 << 20)) !== undefined);
        return undefined
      }
      const clean = this.#clean(entry)
      if (clean) return clean
    }
  }

  content(): Promise<Uint8Array | undefined> {
    return this.#tar.content().catch(asLayerError)
  }

  /** Whether a link of this layer, as far as it has been read, stands in the way to `path`. */
  isBelowLink(path: string): boolean {
    return this.#links.resolve(path.split('/')) !== path
  }

  close(): Promise<void> {
    return this.#bytes.close()
  }

  async #nextInTar(): Promise<TarEntry | undefined> {
    const entry = await this.#tar.next().catch(asLayerError)
    if (entry === undefined) return undefined
    if (++this.#entries > this.#bounds.maxEntries) {
      throw new FaasError('IMAGE_TOO_LARGE', `a layer has more than ${this.#bounds.maxEntries} entries`)
    }
    this.#fileBytes += entry.size
    if (this.#fileBytes > this.#bounds.maxFileBytes) {
      throw new FaasError('IMAGE_TOO_LARGE', `the layers have more than ${this.#bounds.maxFileBytes} bytes`, {
        hint: 'make the image smaller',
      })
    }
    return entry
  }

  #clean(entry: TarEntry): LayerEntry | undefined {
    const parts = partsOf(entry.name)
    const last = parts.at(-1)
    if (last === undefined) {
      if (entry.kind !== 'directory') throw invalid(`a ${entry.kind} stands for the root of the layer`)
      return { kind: 'directory', path: '', attributes: attributesOf(entry) }
    }
    const marked = parts.some((part) => part.startsWith(whiteoutPrefix))
    if (marked) return this.#mark(parts, last, entry.name)
    const path = this.#links.resolve(parts)
    // One path, one meaning: whatever stood there before is replaced. But not by what never comes to be: a link stays
    // one where a device would have taken its place.
    if (!keepsWhatIsThere.has(entry.kind)) this.#links.delete(path)
    this.#skippedDevices.delete(path)
    return this.#create(entry, path)
  }

  #mark(parts: string[], last: string, name: string): LayerEntry | undefined {
    const parent = parts.slice(0, -1)
    if (last === opaqueName && !parent.some((part) => part.startsWith(whiteoutPrefix))) {
      return { kind: 'opaque', path: this.#links.resolve([...parent, '.']).replace(/\/?\.$/, '') }
    }
    if (parts.some((part) => part.startsWith(aufsPrefix))) return undefined
    const hidden = last.slice(whiteoutPrefix.length)
    const nested = parent.some((part) => part.startsWith(whiteoutPrefix))
    if (nested || hidden === '' || hidden === '.' || hidden === '..') {
      throw invalid(`${shownPath(name)} is no whiteout of anything`)
    }
    return { kind: 'whiteout', path: this.#links.resolve([...parent, hidden]) }
  }

  #create(entry: TarEntry, path: string): LayerEntry | undefined {
    const attributes = attributesOf(entry)
    switch (entry.kind) {
      case 'file':
        return { kind: 'file', path, attributes, size: entry.size }
      case 'directory':
      case 'fifo':
        return { kind: entry.kind, path, attributes }
      case 'symlink':
        if (entry.linkName === '' || entry.linkName.length > maxTargetBytes) {
          throw invalid(`the link ${shownPath(path)} has a target of ${entry.linkName.length} bytes`)
        }
        this.#links.set(path, entry.linkName)
        return { kind: 'symlink', path, attributes, target: entry.linkName }
      case 'hardlink':
        return this.#hardlink(entry, path, attributes)
      case 'character device':
      case 'block device':
        // Docker's own runtimes give a container its devices; those of an image never come to be.
        this.#skippedDevices.add(path)
        return undefined
      case 'sparse file':
        throw invalid(`${shownPath(path)} is a sparse file in a form that no image builder writes`)
      default:
        throw invalid(`${shownPath(path)} is of the unknown type ${JSON.stringify(entry.type)}`)
    }
  }

  #hardlink(entry: TarEntry, path: string, attributes: Attributes): LayerEntry | undefined {
    const targetParts = partsOf(entry.linkName, 'the target of a hard link')
    if (targetParts.length === 0) throw invalid(`${shownPath(path)} is a hard link to a directory`)
    const target = this.#links.resolve(targetParts)
    if (this.#skippedDevices.has(target)) return undefined
    if (target === path) return undefined
    // A hard link to a symbolic link is another name of that link.
    const linked = this.#links.get(target)
    this.#links.delete(path)
    if (linked !== undefined) this.#links.set(path, linked)
    return { kind: 'hardlink', path, attributes, target }
  }
}

const keepsWhatIsThere: ReadonlySet<TarEntry['kind']> = new Set([
  'hardlink',
  'character device',
  'block device',
])

const idInRange = (id: number): number => (id >= 0 && id <= maxId ? id : overflowId)

const attributesOf = (entry: TarEntry): Attributes => ({
  mode: entry.mode & modeMask,
  uid: idInRange(entry.uid),
  gid: idInRange(entry.gid),
  mtimeSeconds: Math.min(Math.max(entry.mtimeSeconds, 0), maxTimeSeconds),
})

function asLayerError(error: unknown): never {
  if (error instanceof TarError) throw invalid(`a layer is no tar archive: ${error.message}`)
  throw error
}
