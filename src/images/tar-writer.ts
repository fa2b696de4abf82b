/**
 * Renders tar headers for GNU tar to read: names as GNU long names, because those are taken byte by byte whatever
 * the locale, and one extended attribute as a pax record. All numbers must be in range: the caller has seen to it.
 */
import { blockBytes } from './tar-header.ts'

export type WrittenKind = 'file' | 'hardlink' | 'symlink' | 'directory' | 'fifo' | 'character device'

/** Names are one character a byte. */
export interface WrittenEntry {
  readonly kind: WrittenKind
  readonly name: string
  readonly linkName?: string
  /** Permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** 0 or more. */
  readonly mtimeSeconds: number
  /** Content bytes that follow. Default 0. */
  readonly size?: number
  /** Extended attributes, by name. */
  readonly attributes?: Readonly<Record<string, string>>
}

const typeFlags: Readonly<Record<WrittenKind, string>> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  'character device': '3',
  directory: '5',
  fifo: '6',
}

const nameBytes = 100
const largestOctalSize = 0o77777777777

/** The blocks that precede the content of an entry. A character device has the numbers 0, 0. */
export function renderTarHeader(entry: WrittenEntry): Buffer {
  const parts: Buffer[] = []
  const { name, linkName = '', attributes } = entry
  if (attributes)
    parts.push(...extension('x', Buffer.concat(Object.entries(attributes).map(attributeRecord))))
  if (name.length > nameBytes) parts.push(...extension('L', Buffer.from(`${name}\0`, 'latin1')))
  if (linkName.length > nameBytes) parts.push(...extension('K', Buffer.from(`${linkName}\0`, 'latin1')))
  parts.push(block(typeFlags[entry.kind], entry))
  return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts)
}

/** Zero bytes between the end of `size` content bytes and the next block. */
export const paddingOf = (size: number): Buffer =>
  zeros.subarray(0, (blockBytes - (size % blockBytes)) % blockBytes)

/** Two zero blocks. */
export const endOfArchive: Buffer = Buffer.alloc(2 * blockBytes)
const zeros = Buffer.alloc(blockBytes)

function attributeRecord([name, value]: [string, string]): Buffer {
  const rest = ` SCHILY.xattr.${name}=${value}\n`
  let length = rest.length + 1
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length
  return Buffer.from(`${length}${rest}`, 'latin1')
}

function extension(type: string, body: Buffer): Buffer[] {
  const name = type === 'x' ? 'PaxHeaders/entry' : '././@LongLink'
  const header = block(type, { name, mode: 0, uid: 0, gid: 0, mtimeSeconds: 0, size: body.length })
  return [header, body, paddingOf(body.length)]
}

function block(type: string, entry: Omit<WrittenEntry, 'kind'>): Buffer {
  const bytes = Buffer.alloc(blockBytes)
  const octal = (value: number, at: number, length: number) =>
    bytes.write(value.toString(8).padStart(length - 1, '0'), at, 'latin1')
  const size = entry.size ?? 0
  bytes.write(entry.name.slice(0, nameBytes), 0, 'latin1')
  octal(entry.mode, 100, 8)
  octal(entry.uid, 108, 8)
  octal(entry.gid, 116, 8)
  if (size <= largestOctalSize) octal(size, 124, 12)
  else {
    bytes.writeUInt8(0x80, 124)
    bytes.writeBigUInt64BE(BigInt(size), 128)
  }
  octal(Math.min(entry.mtimeSeconds, largestOctalSize), 136, 12)
  bytes.write('        ', 148, 'latin1')
  bytes.write(type, 156, 'latin1')
  bytes.write((entry.linkName ?? '').slice(0, nameBytes), 157, 'latin1')
  bytes.write('ustar  \0', 257, 'latin1')
  octal(0, 329, 8)
  octal(0, 337, 8)
  let sum = 0
  for (const byte of bytes) sum += byte
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return bytes
}
