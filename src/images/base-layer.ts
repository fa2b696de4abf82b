/**
 * Our own layer on top of every image's: the real directories and the file that a container's mounts go on. With it
 * no image decides what /proc, /dev, /tmp and /control.sock are; one that has something else there is refused.
 */
import { chmod, chown, lstat, mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { FaasError } from '../values/errors.ts'
import { ID_BASE } from '../values/id-map.ts'

const entries = [
  { name: '.', kind: 'directory', mode: 0o755 },
  { name: 'proc', kind: 'directory', mode: 0o555 },
  { name: 'dev', kind: 'directory', mode: 0o755 },
  { name: 'tmp', kind: 'directory', mode: 0o1777 },
  { name: 'control.sock', kind: 'file', mode: 0o666 },
] as const

/** Makes the layer, or puts it right. Idempotent: what is as it should be is not touched. */
export async function ensureBaseLayer(directory: string): Promise<void> {
  for (const { name, kind, mode } of entries) {
    const path = join(directory, name)
    if (kind === 'directory') await mkdir(path, { recursive: true })
    else await (await open(path, 'a')).close()
    const found = await lstat(path)
    if (found.uid !== ID_BASE || found.gid !== ID_BASE) await chown(path, ID_BASE, ID_BASE)
    if ((found.mode & 0o7777) !== mode) await chmod(path, mode)
  }
}

/**
 * Looks at what the layers, top first, have at the places of ours, following no link.
 * Throws IMAGE_ROOTFS_REFUSED unless each is absent, or a directory (control.sock: an ordinary file).
 */
export async function checkMountPoints(trees: readonly string[]): Promise<void> {
  for (const { name, kind } of entries) {
    if (name === '.') continue
    for (const tree of trees) {
      const found = await kindAt(join(tree, name))
      if (found === 'absent') continue
      // The layers below are hidden here, whatever they have.
      if (found === 'whiteout') break
      if (found !== kind) {
        throw new FaasError(
          'IMAGE_ROOTFS_REFUSED',
          `/${name} in the image is a ${found}, it must be a ${kind}`,
          {
            hint: `build the image without /${name}`,
          },
        )
      }
      // A directory that meets anything else further down hides it.
      break
    }
  }
}

async function kindAt(path: string): Promise<string> {
  try {
    const found = await lstat(path)
    if (found.isDirectory()) return 'directory'
    if (found.isFile()) return 'file'
    if (found.isSymbolicLink()) return 'symbolic link'
    if (found.isCharacterDevice() && found.rdev === 0) return 'whiteout'
    return found.isFIFO() ? 'FIFO' : 'special file'
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'absent'
    throw error
  }
}
