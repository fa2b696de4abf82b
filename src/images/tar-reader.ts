/**
 * Reads a tar archive from front to back: ustar, old Unix, GNU (long names, base-256 numbers) and pax headers.
 * Nothing is interpreted beyond that, nothing is held but one entry's names. Every amount that the archive states is
 * bounded before it is believed. Failures are {@link TarError}s.
 */
import { type ByteReader } from './byte-reader.ts'
import {
  blockBytes,
  isZeroBlock,
  parsePaxRecords,
  parseTarHeader,
  TarError,
  type TarHeader,
} from './tar-header.ts'

export type TarKind =
  | 'file'
  | 'hardlink'
  | 'symlink'
  | 'directory'
  | 'fifo'
  | 'character device'
  | 'block device'
  /** A file with holes in one of GNU tar's forms. */
  | 'sparse file'
  /** Anything else; `type` tells. */
  | 'other'

/** Names are one character a byte. */
export interface TarEntry {
  readonly kind: TarKind
  readonly type: string
  readonly name: string
  readonly linkName: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Whole seconds since 1970, of any sign. */
  readonly mtimeSeconds: number
  /** Bytes that {@link TarReader.content} hands out: 0 for all but files. */
  readonly size: number
}

const maxLongNameBytes = 64 * 1024
const maxPaxBytes = 1024 * 1024
/** Long name, long link, pax header and a global one; more than that before one entry is no tar program's work. */
const maxExtensions = 8
const pieceBytes = 256 * 1024

const kinds: Readonly<Record<string, TarKind>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'character device',
  '4': 'block device',
  '5': 'directory',
  '6': 'fifo',
  S: 'sparse file',
}

export class TarReader {
  readonly #bytes: ByteReader
  #contentLeft = 0
  #paddingLeft = 0
  /** Whether two zero blocks, the end-of-archive mark, have been read. */
  ended = false

  constructor(bytes: ByteReader) {
    this.#bytes = bytes
  }

  /** The next entry, past what is left of the one before; undefined at the mark or at the end of the stream. */
  async next(): Promise<TarEntry | undefined> {
    await this.#skipContent()
    let longName: string | undefined
    let longLink: string | undefined
    let records: Map<string, string> | undefined
    for (let extensions = 0; extensions <= maxExtensions; extensions++) {
      const header = await this.#header()
      if (header === undefined) {
        if (extensions > 0) throw new TarError('the archive ends after an extended header', true)
        return undefined
      }
      if (header.type === 'L') longName = await this.#longName(header)
      else if (header.type === 'K') longLink = await this.#longName(header)
      else if (header.type === 'x') records = parsePaxRecords(await this.#body(header, maxPaxBytes))
      // Global records would change every later entry. Docker and Go ignore them as well.
      else if (header.type === 'g') parsePaxRecords(await this.#body(header, maxPaxBytes))
      else return this.#entry(header, longName, longLink, records ?? new Map())
    }
    throw new TarError('an entry has too many extended headers')
  }

  /** The next piece of the current entry's content; undefined when that is complete. */
  async content(): Promise<Uint8Array | undefined> {
    if (this.#contentLeft === 0) return undefined
    const piece = await this.#bytes.some(Math.min(this.#contentLeft, pieceBytes))
    if (piece === undefined) throw new TarError('the archive ends within the content of an entry', true)
    this.#contentLeft -= piece.length
    return piece
  }

  async #skipContent(): Promise<void> {
    while ((await this.content()) !== undefined);
    if (this.#paddingLeft === 0) return
    const padding = await this.#bytes.upTo(this.#paddingLeft)
    if (padding.length < this.#paddingLeft) throw new TarError('the archive ends within an entry', true)
    this.#paddingLeft = 0
  }

  async #header(): Promise<TarHeader | undefined> {
    const block = await this.#bytes.upTo(blockBytes)
    if (block.length === 0) return undefined
    if (block.length < blockBytes) throw new TarError('the archive ends within a header', true)
    if (!isZeroBlock(block)) return parseTarHeader(block)
    const second = await this.#bytes.upTo(blockBytes)
    if (second.length < blockBytes) return undefined
    if (!isZeroBlock(second)) throw new TarError('a single zero block stands between entries')
    this.ended = true
    return undefined
  }

  #announce(size: number): void {
    this.#contentLeft = size
    this.#paddingLeft = (blockBytes - (size % blockBytes)) % blockBytes
  }

  async #body(header: TarHeader, maxBytes: number): Promise<Uint8Array> {
    if (header.size > maxBytes) throw new TarError(`an extended header has ${header.size} bytes`)
    const bytes = Uint8Array.from(await this.#bytes.upTo(header.size))
    if (bytes.length < header.size) throw new TarError('the archive ends within an extended header', true)
    this.#announce(header.size)
    this.#contentLeft = 0
    await this.#skipContent()
    return bytes
  }

  async #longName(header: TarHeader): Promise<string> {
    const bytes = await this.#body(header, maxLongNameBytes)
    const end = bytes.indexOf(0)
    return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('latin1')
  }

  #entry(
    header: TarHeader,
    longName: string | undefined,
    longLink: string | undefined,
    records: ReadonlyMap<string, string>,
  ): TarEntry {
    const name = records.get('path') ?? longName ?? header.name
    const linkName = records.get('linkpath') ?? longLink ?? header.linkName
    if (name.includes('\0') || linkName.includes('\0')) throw new TarError('a name contains a zero byte')
    const sparse = header.type === 'S' || [...records.keys()].some((key) => key.startsWith('GNU.sparse.'))
    const oldDirectory = header.type === '\0' && name.endsWith('/')
    const kind = oldDirectory ? 'directory' : sparse ? 'sparse file' : (kinds[header.type] ?? 'other')
    // Only files have content. What other kinds state is ignored, as Go's reader (and so Docker) does.
    const stated = integerRecord(records, 'size') ?? header.size
    if (stated < 0) throw new TarError('an entry has a negative size')
    const size = kind === 'file' || kind === 'sparse file' || kind === 'other' ? stated : 0
    this.#announce(size)
    return {
      kind,
      type: header.type,
      name,
      linkName,
      mode: header.mode,
      uid: integerRecord(records, 'uid') ?? header.uid,
      gid: integerRecord(records, 'gid') ?? header.gid,
      mtimeSeconds: integerRecord(records, 'mtime') ?? header.mtimeSeconds,
      size,
    }
  }
}

/** A decimal number, its fraction dropped. */
function integerRecord(records: ReadonlyMap<string, string>, key: string): number | undefined {
  const value = records.get(key)
  if (value === undefined || value === '') return undefined
  const number = /^-?[0-9]+(\.[0-9]*)?$/.test(value) ? Math.floor(Number(value)) : Number.NaN
  if (!Number.isSafeInteger(number)) throw new TarError(`the ${key} of an entry is not a number in range`)
  return number
}
