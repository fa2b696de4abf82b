/**
 * Files that must survive a power cut. A reader sees the old content or the new, never a mixture:
 * written aside, fsync'd, renamed, and the directory fsync'd. When a promise resolves, it is on the disk.
 */
import { randomBytes } from 'node:crypto'
import { open, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

export interface WriteOptions {
  /** Permission bits, independent of the umask. Default 0o644. */
  readonly mode?: number
  /** Called when all is written aside and on the disk, and nothing has been replaced yet. */
  readonly beforeRename?: () => Promise<void> | void
}

/** Replaces `path` with `data`, durably. Temporary names end in `.tmp`, so that a clean-up knows them. */
export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array,
  { mode = 0o644, beforeRename }: WriteOptions = {},
): Promise<void> {
  const aside = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`)
  try {
    const file = await open(aside, 'wx', 0o600)
    try {
      await file.writeFile(data)
      await file.chmod(mode)
      await file.sync()
    } finally {
      await file.close()
    }
    await beforeRename?.()
    await rename(aside, path)
  } catch (error) {
    await rm(aside, { force: true })
    throw error
  }
  await fsyncDirectory(dirname(path))
}

/** Makes the entries of a directory durable (renames and unlinks in it included). */
export async function fsyncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/** The text of a file, or undefined where there is none. Other errors are thrown as Node has them. */
export async function readTextIfExists(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/**
 * Removes a file or a tree; what is not there is no error. It does not follow links. A mount point below is
 * refused by the kernel (EBUSY), but what is mounted there is emptied first: unmount before.
 */
export const removeTree = (path: string): Promise<void> =>
  rm(path, { recursive: true, force: true, maxRetries: 2 })
