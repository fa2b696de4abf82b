/**
 * A layer is read twice. The *survey* checks all of it and learns what it hides of the layers below; the *rendering*
 * writes it as a tar stream of our own making, in which whiteouts have become what overlayfs understands:
 *
 * - a hidden path is a character device 0:0, which the kernel lets a user namespace make (Linux 5.8);
 * - an opaque directory has the attribute `user.overlay.opaque`, because `trusted.*` is root's alone; the overlay is
 *   mounted with `userxattr` (Linux 5.11) to read it.
 *
 * So the unpacker needs no privilege and nothing is done to its tree afterwards.
 */
import { createHash } from 'node:crypto'
import { FaasError } from '../values/errors.ts'
import { type LayerBounds, type LayerEntry, LayerReader } from './layer-entries.ts'
import { endOfArchive, paddingOf, renderTarHeader } from './tar-writer.ts'

export interface LayerSurvey {
  /** SHA-256 of the uncompressed layer, in hex. */
  readonly diffHash: string
  /** Bytes of its files. */
  readonly fileBytes: number
  readonly entries: number
  /** Paths that `.wh.` names hide. */
  readonly hidden: ReadonlySet<string>
  /** Directories that are opaque. The root, '', may be among them; overlayfs has no form for that. */
  readonly opaque: ReadonlySet<string>
}

/** Takes bytes in order. Resolves when it is done with them. */
export type Sink = (bytes: Uint8Array) => Promise<void>

const opaqueAttribute = { 'user.overlay.opaque': 'y' }
/** An implied directory has the mode and owner that Docker gives it. */
const implied = { mode: 0o755, uid: 0, gid: 0, mtimeSeconds: 0 }

/** Reads a whole uncompressed layer. Throws IMAGE_LAYER_INVALID, IMAGE_TOO_LARGE. */
export async function surveyLayer(
  source: AsyncIterable<Uint8Array>,
  bounds: LayerBounds & { readonly maxMarks: number },
): Promise<LayerSurvey> {
  const hash = createHash('sha256')
  async function* hashed(): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      hash.update(chunk)
      yield chunk
    }
  }
  const layer = new LayerReader(hashed(), bounds)
  const hidden = new Set<string>()
  const opaque = new Set<string>()
  let fileBytes = 0
  let entries = 0
  try {
    for (let entry = await layer.next(); entry !== undefined; entry = await layer.next()) {
      entries++
      if (entry.kind === 'file') fileBytes += entry.size
      else if (entry.kind === 'whiteout') hidden.add(entry.path)
      else if (entry.kind === 'opaque') opaque.add(entry.path)
      if (hidden.size + opaque.size > bounds.maxMarks) {
        throw new FaasError('IMAGE_TOO_LARGE', `a layer has more than ${bounds.maxMarks} whiteouts`)
      }
    }
  } finally {
    await layer.close()
  }
  return { diffHash: hash.digest('hex'), fileBytes, entries, hidden, opaque }
}

/**
 * Writes the layer, of which `survey` was made, to `sink`. Marks hold for the layers below only, wherever in this
 * one they stand: a path that is hidden and made anew is no whiteout, but if it is a directory it is opaque.
 */
export async function renderLayer(
  source: AsyncIterable<Uint8Array>,
  survey: LayerSurvey,
  bounds: LayerBounds,
  sink: Sink,
): Promise<void> {
  const layer = new LayerReader(source, bounds)
  const { hidden, opaque } = survey
  const marked = (path: string): boolean => hidden.has(path) || opaque.has(path)
  const anyMarks = hidden.size + opaque.size > 0
  const made = new Set<string>()
  const makeOpaque = async (path: string) => {
    made.add(path)
    await sink(renderTarHeader({ kind: 'directory', name: path, ...implied, attributes: opaqueAttribute }))
  }
  try {
    for (let entry = await layer.next(); entry !== undefined; entry = await layer.next()) {
      if (entry.kind === 'whiteout' || entry.kind === 'opaque') continue
      if (anyMarks) {
        for (const parent of parentsOf(entry.path)) {
          if (marked(parent) && !made.has(parent)) await makeOpaque(parent)
        }
        if (marked(entry.path)) made.add(entry.path)
      }
      await sink(headerOf(entry, marked(entry.path)))
      if (entry.kind === 'file') await copyContent(layer, entry.size, sink)
    }
    for (const path of opaque) {
      if (path === '' || made.has(path) || parentsOf(path).some(marked) || layer.isBelowLink(path)) continue
      await makeOpaque(path)
    }
    for (const path of hidden) {
      // Below a directory that hides everything there is nothing to hide, and overlayfs would list the whiteout.
      if (made.has(path) || opaque.has(path) || parentsOf(path).some(marked) || layer.isBelowLink(path))
        continue
      await sink(renderTarHeader({ kind: 'character device', name: path, ...implied, mode: 0 }))
    }
    await sink(endOfArchive)
  } finally {
    await layer.close()
  }
}

/** The directories that a path lies in, the uppermost first, without the root. */
function parentsOf(path: string): string[] {
  const parents: string[] = []
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) parents.push(path.slice(0, at))
  return parents
}

function headerOf(
  entry: Exclude<LayerEntry, { kind: 'whiteout' | 'opaque' }>,
  isOpaque: boolean,
): Uint8Array {
  return renderTarHeader({
    kind: entry.kind,
    name: entry.path === '' ? '.' : entry.path,
    ...entry.attributes,
    ...(entry.kind === 'file' ? { size: entry.size } : {}),
    ...('target' in entry ? { linkName: entry.target } : {}),
    ...(entry.kind === 'directory' && isOpaque && entry.path !== '' ? { attributes: opaqueAttribute } : {}),
  })
}

async function copyContent(layer: LayerReader, size: number, sink: Sink): Promise<void> {
  for (let piece = await layer.content(); piece !== undefined; piece = await layer.content())
    await sink(piece)
  await sink(paddingOf(size))
}
