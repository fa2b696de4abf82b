/**
 * One header block of a tar archive as POSIX pax (IEEE Std 1003.1, "pax Interchange Format", "ustar Interchange
 * Format") and GNU tar ("Basic Tar Format" of its manual) have it. Names are bytes of no known encoding: here they
 * are strings of one character a byte (latin1), so that nothing is lost or made equal on the way through.
 * Failures are plain {@link TarError}s; whoever reads the archive knows what they mean.
 */

export const blockBytes = 512

/** The archive breaks its format. `truncated` when it merely ends too early. */
export class TarError extends Error {
  readonly truncated: boolean

  constructor(message: string, truncated = false) {
    super(message)
    this.name = 'TarError'
    this.truncated = truncated
  }
}

/** The fields of a header block, not yet overridden by what precedes it (long names, pax records). */
export interface TarHeader {
  /** The type flag: one character, `\0` included. */
  readonly type: string
  readonly name: string
  readonly linkName: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeSeconds: number
  /** Content bytes as written in the header; never negative. */
  readonly size: number
  readonly deviceMajor: number
  readonly deviceMinor: number
}

const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')

function text(block: Uint8Array, from: number, length: number): string {
  const field = block.subarray(from, from + length)
  const end = field.indexOf(0)
  return latin1(end < 0 ? field : field.subarray(0, end))
}

/** A number in octal digits, or in GNU's base 256, which may be negative. */
function number(block: Uint8Array, from: number, length: number, what: string): number {
  const first = block[from] ?? 0
  if (first & 0x80) {
    let value = first === 0xff ? -1 : first & 0x7f
    for (let at = from + 1; at < from + length; at++) value = value * 256 + (block[at] ?? 0)
    if (!Number.isSafeInteger(value)) throw new TarError(`the ${what} of an entry is out of range`)
    return value
  }
  const digits = text(block, from, length).trim()
  if (digits === '') return 0
  if (!/^[0-7]+$/.test(digits)) throw new TarError(`the ${what} of an entry is not a number`)
  return Number.parseInt(digits, 8)
}

const checksumFrom = 148
const checksumLength = 8

/** Both sums that are in use: of the bytes as unsigned and, as some old programs wrote it, as signed numbers. */
function checksumFits(block: Uint8Array): boolean {
  let unsigned = checksumLength * 0x20
  let signed = unsigned
  for (let at = 0; at < blockBytes; at++) {
    if (at === checksumFrom) at += checksumLength
    const byte = block[at] ?? 0
    unsigned += byte
    signed += byte > 127 ? byte - 256 : byte
  }
  const digits = text(block, checksumFrom, checksumLength).trim()
  if (!/^[0-7]+$/.test(digits)) return false
  const written = Number.parseInt(digits, 8)
  return written === unsigned || written === signed
}

export const isZeroBlock = (block: Uint8Array): boolean => block.every((byte) => byte === 0)

/** Throws {@link TarError} for a block that is no header. */
export function parseTarHeader(block: Uint8Array): TarHeader {
  if (!checksumFits(block)) throw new TarError('a header has a wrong checksum')
  const magic = text(block, 257, 8)
  const posix = magic.startsWith('ustar') && !magic.startsWith('ustar ')
  const named = posix || magic.startsWith('ustar ')
  const prefix = posix ? text(block, 345, 155) : ''
  const name = text(block, 0, 100)
  const size = number(block, 124, 12, 'size')
  if (size < 0) throw new TarError('an entry has a negative size')
  return {
    type: String.fromCharCode(block[156] ?? 0),
    name: prefix === '' ? name : `${prefix}/${name}`,
    linkName: text(block, 157, 100),
    mode: number(block, 100, 8, 'mode'),
    uid: number(block, 108, 8, 'user id'),
    gid: number(block, 116, 8, 'group id'),
    mtimeSeconds: number(block, 136, 12, 'time'),
    size,
    deviceMajor: named ? number(block, 329, 8, 'device number') : 0,
    deviceMinor: named ? number(block, 337, 8, 'device number') : 0,
  }
}

/**
 * The records of a pax extended header, last one wins. Their text is `LENGTH KEY=VALUE\n`, LENGTH counting all of it.
 * Throws {@link TarError}.
 */
export function parsePaxRecords(bytes: Uint8Array): Map<string, string> {
  const records = new Map<string, string>()
  let at = 0
  while (at < bytes.length) {
    const space = bytes.indexOf(0x20, at)
    const digits = space < 0 ? '' : latin1(bytes.subarray(at, Math.min(space, at + 20)))
    const length = /^[1-9][0-9]*$/.test(digits) ? Number(digits) : 0
    const end = at + length
    if (length === 0 || end > bytes.length || end <= space + 2 || bytes[end - 1] !== 0x0a) {
      throw new TarError('an extended header is malformed')
    }
    const record = latin1(bytes.subarray(space + 1, end - 1))
    const equals = record.indexOf('=')
    if (equals <= 0) throw new TarError('an extended header is malformed')
    records.set(record.slice(0, equals), record.slice(equals + 1))
    at = end
  }
  return records
}
