/**
 * The user namespace that layers are unpacked in: root inside is {@link ID_BASE} outside, and nobody at all to the
 * host. One descriptor of it serves any number of unpackers; when that and they are gone, so is the namespace.
 * Needs `unshare` (util-linux) and root. Failures: PROGRAM_MISSING, COMMAND_FAILED.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type FileHandle, open, writeFile } from 'node:fs/promises'
import { FaasError } from '../values/errors.ts'
import { ID_BASE, ID_COUNT } from '../values/id-map.ts'

/** The caller closes the answer. */
export async function openUnpackNamespace(): Promise<FileHandle> {
  // `cat` repeats a line as soon as it runs, which is after it has entered the namespace.
  const holder = spawn('unshare', ['--user', '--', 'cat'], { stdio: ['pipe', 'pipe', 'ignore'] })
  try {
    await started(holder)
    const process = `/proc/${holder.pid}`
    const map = `0 ${ID_BASE} ${ID_COUNT}\n`
    await writeFile(`${process}/uid_map`, map)
    await writeFile(`${process}/gid_map`, map)
    return await open(`${process}/ns/user`)
  } catch (error) {
    if (error instanceof FaasError) throw error
    throw new FaasError('COMMAND_FAILED', `a user namespace cannot be made: ${(error as Error).message}`, {
      hint: 'faasd needs root and a kernel with user namespaces (user.max_user_namespaces above 0)',
      cause: error,
    })
  } finally {
    holder.stdin.end()
    holder.kill('SIGKILL')
  }
}

async function started(holder: ChildProcess): Promise<void> {
  const ended = once(holder, 'close').then(([code]) => {
    throw new Error(`unshare exited with ${code}`)
  })
  ended.catch(() => {})
  holder.stdin?.on('error', () => {})
  holder.stdin?.write('\n')
  try {
    await Promise.race([
      once(holder.stdout as NodeJS.ReadableStream, 'data'),
      ended,
      once(holder, 'spawn').then(() => ended),
    ])
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    throw new FaasError('PROGRAM_MISSING', 'the program unshare is not installed', {
      hint: 'install util-linux',
      cause: error,
    })
  }
}
