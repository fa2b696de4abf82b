/**
 * An image archive (the outer tar of `docker save`), streamed to one spool file while it is hashed. Nothing of it is
 * ever created under a name of its own: an index says where in the spool each entry's bytes lie, and links between
 * entries are followed in that index alone. The archive may be gzip or zstd as a whole.
 * Failures: ARCHIVE_INVALID, ARCHIVE_TRUNCATED, IMAGE_TOO_LARGE, IMAGE_DIGEST_MISMATCH, DISK_FULL.
 */
import { createHash } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { posix } from 'node:path'
import { FaasError } from '../values/errors.ts'
import { ByteReader } from './byte-reader.ts'
import { CompressionError, uncompressed } from './compression.ts'
import type { ImageLimits } from './limits.ts'
import { TarError } from './tar-header.ts'
import { type TarEntry, TarReader } from './tar-reader.ts'

/** Where an entry's bytes lie in the spool. */
export interface ArchiveFile {
  readonly offset: number
  readonly size: number
  /** SHA-256 of the bytes, in hex. */
  readonly hash: string
}

type IndexEntry = ArchiveFile | { readonly alias: string }

const maxNameBytes = 4096
/** As many links as the kernel follows in one path. */
const maxAliases = 40
const blobName = /^blobs\/sha256\/([0-9a-f]{64})$/

export class Archive {
  readonly #spool: FileHandle
  readonly #index: ReadonlyMap<string, IndexEntry>

  constructor(spool: FileHandle, index: ReadonlyMap<string, IndexEntry>) {
    this.#spool = spool
    this.#index = index
  }

  /** The file of that name, links followed; undefined where there is none. Throws ARCHIVE_INVALID for a loop. */
  find(name: string): ArchiveFile | undefined {
    let at = name
    for (let followed = 0; followed <= maxAliases; followed++) {
      const entry = this.#index.get(at)
      if (entry === undefined || !('alias' in entry)) return entry
      at = entry.alias
    }
    throw new FaasError('ARCHIVE_INVALID', `${shown(name)} is a loop of links`)
  }

  /** Like {@link find}, but throws ARCHIVE_INVALID where there is none; `what` says what it was needed as. */
  get(name: string, what: string): ArchiveFile {
    const file = this.find(name)
    if (file) return file
    throw new FaasError('ARCHIVE_INVALID', `${what}, ${shown(name)}, is not in the archive`, {
      hint: 'save the image again with docker save',
    })
  }

  /** All bytes of a file. The caller has looked at its size. */
  async read(file: ArchiveFile): Promise<Buffer> {
    const bytes = Buffer.alloc(file.size)
    const { bytesRead } = await this.#spool.read(bytes, 0, file.size, file.offset)
    if (bytesRead !== file.size)
      throw new FaasError('INTERNAL', 'the spool file is shorter than its index says')
    return bytes
  }
}

/** Reads an archive to its end and answers its index. The spool stays the caller's to close. */
export async function spoolArchive(
  body: AsyncIterable<Uint8Array>,
  spool: FileHandle,
  limits: ImageLimits,
  onBytes: (bytes: number) => void = () => {},
): Promise<Archive> {
  const plain = uncompressed(bounded(body, limits.archiveBytes), {
    maxBytes: limits.archiveBytes,
    ratio: limits.compressionRatio,
  })
  const bytes = new ByteReader(plain)
  try {
    const index = await spoolEntries(new TarReader(bytes), spool, limits, onBytes)
    await onlyZerosFollow(bytes)
    return new Archive(spool, index)
  } catch (error) {
    throw asArchiveError(error, bytes.position)
  } finally {
    await bytes.close()
  }
}

async function spoolEntries(
  tar: TarReader,
  spool: FileHandle,
  limits: ImageLimits,
  onBytes: (bytes: number) => void,
): Promise<Map<string, IndexEntry>> {
  const index = new Map<string, IndexEntry>()
  let end = 0
  let entries = 0
  for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
    if (++entries > limits.archiveEntries) {
      throw new FaasError('ARCHIVE_INVALID', `the archive has more than ${limits.archiveEntries} entries`)
    }
    const name = entryName(entry.name)
    if (entry.kind === 'file') {
      const file = await spoolFile(tar, spool, end, (bytes) => onBytes(end + bytes))
      end += file.size
      checkBlobName(name, file)
      // The last one wins, as with every tar program.
      index.set(name, file)
    } else if (entry.kind === 'symlink' || entry.kind === 'hardlink') {
      index.set(name, { alias: aliasTarget(name, entry) })
    } else if (entry.kind !== 'directory') {
      throw new FaasError(
        'ARCHIVE_INVALID',
        `${shown(name)} is a ${entry.kind}, which no image archive contains`,
      )
    }
  }
  if (!tar.ended) throw new TarError('the archive has no end mark', true)
  return index
}

async function spoolFile(
  tar: TarReader,
  spool: FileHandle,
  offset: number,
  onBytes: (bytes: number) => void,
): Promise<ArchiveFile> {
  const hash = createHash('sha256')
  let size = 0
  for (let piece = await tar.content(); piece !== undefined; piece = await tar.content()) {
    hash.update(piece)
    await writeAll(spool, piece, offset + size)
    size += piece.length
    onBytes(size)
  }
  return { offset, size, hash: hash.digest('hex') }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let written = 0
  while (written < bytes.length) {
    const result = await file.write(bytes, written, bytes.length - written, position + written)
    written += result.bytesWritten
  }
}

/** A name as the index has it: no `./` before it, no doubled or trailing slashes. */
function entryName(latin1: string): string {
  if (latin1.length > maxNameBytes) {
    throw new FaasError('ARCHIVE_INVALID', `a name in the archive has ${latin1.length} bytes`)
  }
  return posix.normalize(Buffer.from(latin1, 'latin1').toString('utf8')).replace(/\/$/, '')
}

/** A hard link names an entry from the root of the archive, a symbolic one from its own directory. */
function aliasTarget(name: string, entry: TarEntry): string {
  const link = entryName(entry.linkName)
  const target = entry.kind === 'hardlink' ? link : posix.join(posix.dirname(name), link)
  if (link.startsWith('/') || target === '..' || target.startsWith('../')) {
    throw new FaasError('ARCHIVE_INVALID', `${shown(name)} is a link to ${shown(link)}, out of the archive`)
  }
  return target
}

function checkBlobName(name: string, file: ArchiveFile): void {
  const stated = blobName.exec(name)?.[1]
  if (stated === undefined || stated === file.hash) return
  throw new FaasError(
    'IMAGE_DIGEST_MISMATCH',
    `the blob sha256:${stated} has the digest sha256:${file.hash}`,
    {
      hint: 'the archive is damaged: save the image again',
    },
  )
}

async function* bounded(source: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Uint8Array> {
  let bytes = 0
  for await (const chunk of source) {
    bytes += chunk.length
    if (bytes > maxBytes)
      throw new FaasError('IMAGE_TOO_LARGE', `the archive has more than ${maxBytes} bytes`)
    yield chunk
  }
}

async function onlyZerosFollow(bytes: ByteReader): Promise<void> {
  for (let piece = await bytes.some(65536); piece !== undefined; piece = await bytes.some(65536)) {
    if (piece.some((byte) => byte !== 0)) throw new TarError('something follows the end of the archive')
  }
}

function asArchiveError(error: unknown, position: number): unknown {
  if ((error as NodeJS.ErrnoException).code === 'ENOSPC') {
    return new FaasError('DISK_FULL', 'no space left for the archive', { cause: error })
  }
  const hint = 'send the output of docker save as it is'
  if (error instanceof CompressionError)
    return new FaasError('ARCHIVE_INVALID', error.message, { hint, cause: error })
  if (!(error instanceof TarError)) return error
  if (position === 0) return new FaasError('ARCHIVE_INVALID', 'the body is empty', { hint, cause: error })
  const code = error.truncated ? 'ARCHIVE_TRUNCATED' : 'ARCHIVE_INVALID'
  return new FaasError(code, `${error.message} (byte ${position} of the archive)`, { hint, cause: error })
}

export const shown = (name: string): string => JSON.stringify(name.slice(0, 120))
