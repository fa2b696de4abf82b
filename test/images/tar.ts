/**
 * Writes tar files (POSIX ustar with pax headers where a name or a number needs one) from a list of entries, in the
 * order given. Times are 1970 unless said, so that the same entries give the same bytes.
 */
import { createReadStream } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'

export interface TarEntry {
  /** As it is to stand in the archive; checked by nobody. */
  readonly path: string
  /** `file` unless said. */
  readonly type?: 'file' | 'directory' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'
  /** Permission bits; 0755 for directories and 0644 for the rest unless said. */
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  /** Seconds since 1970. */
  readonly mtime?: number
  /** Of a symlink or hard link. */
  readonly target?: string
  readonly content?: string | Uint8Array
  /** A file whose bytes are the content, instead of `content`. */
  readonly source?: string
  readonly deviceMajor?: number
  readonly deviceMinor?: number
  /** More pax records of this entry, such as `SCHILY.xattr.user.a`. */
  readonly pax?: Readonly<Record<string, string>>
}

const typeFlags = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
} as const
const blockBytes = 512

/** Writes the tar file at `path`, replacing what is there. */
export async function writeTar(path: string, entries: Iterable<TarEntry>): Promise<void> {
  const file = await open(path, 'w')
  try {
    for (const entry of entries) await writeEntry(file, entry)
    await file.write(Buffer.alloc(2 * blockBytes))
  } finally {
    await file.close()
  }
}

/** The same in memory, for small archives; `source` is not read here. */
export function renderTar(entries: Iterable<TarEntry>): Buffer {
  const parts: Buffer[] = []
  for (const entry of entries) {
    const content = Buffer.from(entry.content ?? '')
    parts.push(renderHeaders(entry, content.length), content, padding(content.length))
  }
  parts.push(Buffer.alloc(2 * blockBytes))
  return Buffer.concat(parts)
}

async function writeEntry(file: FileHandle, entry: TarEntry): Promise<void> {
  if (entry.source === undefined) {
    const content = Buffer.from(entry.content ?? '')
    await file.write(Buffer.concat([renderHeaders(entry, content.length), content, padding(content.length)]))
    return
  }
  const { size } = await stat(entry.source)
  await file.write(renderHeaders(entry, size))
  for await (const chunk of createReadStream(entry.source, { highWaterMark: 1 << 20 }))
    await file.write(chunk)
  await file.write(padding(size))
}

function renderHeaders(entry: TarEntry, size: number): Buffer {
  const type = entry.type ?? 'file'
  const path = type === 'directory' && !entry.path.endsWith('/') ? `${entry.path}/` : entry.path
  const records: Record<string, string> = { ...entry.pax }
  if (Buffer.byteLength(path) > 100) records.path = path
  if (Buffer.byteLength(entry.target ?? '') > 100) records.linkpath = entry.target ?? ''
  if (size > 0o77777777777) records.size = String(size)
  if ((entry.uid ?? 0) > 0o7777777) records.uid = String(entry.uid)
  if ((entry.gid ?? 0) > 0o7777777) records.gid = String(entry.gid)
  const main = renderHeader(entry, path, typeFlags[type], size)
  if (Object.keys(records).length === 0) return main
  const body = Buffer.concat(Object.entries(records).map(([key, value]) => renderPaxRecord(key, value)))
  const head = renderHeader({ path: 'pax' }, 'pax', 'x', body.length)
  return Buffer.concat([head, body, padding(body.length), main])
}

function renderHeader(entry: TarEntry, path: string, typeFlag: string, size: number): Buffer {
  const block = Buffer.alloc(blockBytes)
  const text = (value: string, offset: number, length: number) =>
    Buffer.from(value).copy(block, offset, 0, length)
  const octal = (value: number, offset: number, length: number) =>
    block.write(
      Math.min(value, 8 ** (length - 1) - 1)
        .toString(8)
        .padStart(length - 1, '0'),
      offset,
    )
  text(path, 0, 100)
  octal(entry.mode ?? (typeFlag === '5' ? 0o755 : 0o644), 100, 8)
  octal(entry.uid ?? 0, 108, 8)
  octal(entry.gid ?? 0, 116, 8)
  octal(typeFlag === '0' || typeFlag === 'x' ? size : 0, 124, 12)
  octal(entry.mtime ?? 0, 136, 12)
  block.fill(' ', 148, 156)
  text(typeFlag, 156, 1)
  text(entry.target ?? '', 157, 100)
  block.write('ustar\x0000', 257, 'latin1')
  octal(entry.deviceMajor ?? 0, 329, 8)
  octal(entry.deviceMinor ?? 0, 337, 8)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

/** `LENGTH KEY=VALUE\n`, where LENGTH counts itself. */
function renderPaxRecord(key: string, value: string): Buffer {
  const rest = ` ${key}=${value}\n`
  const bytes = Buffer.byteLength(rest)
  let length = bytes + String(bytes).length
  if (bytes + String(length).length !== length) length = bytes + String(length).length
  return Buffer.from(`${length}${rest}`)
}

const padding = (size: number) => Buffer.alloc((blockBytes - (size % blockBytes)) % blockBytes)
