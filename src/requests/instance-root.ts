/**
 * What an instance has of its own in its root: the platform's files in /etc, and with `--writable` an upper layer.
 *
 * The upper layer lies on a tmpfs. Its pages are charged to the memory cgroup of whoever writes them, which is the
 * instance: what it writes counts as its memory, and goes with it. Both mounts are made in the bundle, and removing a
 * bundle takes them away by their names, whoever made them.
 * Failures: RUNTIME_FAILED where the kernel does not stack the layers.
 */
import { chmod, chown, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ServedFunction } from '../functions/function.ts'
import { removeTree } from '../host/files.ts'
import { detach, mount } from '../host/native/mounts.ts'
import { platformFiles } from '../images/mount-layer.ts'
import type { BindMount } from '../runtime/container.ts'
import { FaasError } from '../values/errors.ts'
import { hostId } from '../values/id-map.ts'

/** Names in a bundle. The root is passed through by the container's users, the tmpfs below it only by root of the host. */
const rootName = 'rootfs'
const upperName = 'upper'

/** Of the memory: when the files have taken that, a write fails, instead of the instance being killed. */
const upperShare = 0.5
/** Files cost kernel memory that a size does not count. */
const upperInodes = 65_536

/** Mounts a root that can be written to over the function's own and answers its path. The bundle must be there. */
export async function mountWritableRoot(
  bundle: string,
  { rootfs, options }: Pick<ServedFunction, 'rootfs' | 'options'>,
): Promise<string> {
  const upperMount = join(bundle, upperName)
  const target = join(bundle, rootName)
  const size = Math.floor(options.limits.memoryBytes * upperShare)
  for (const directory of [upperMount, target]) await mkdir(directory, { mode: 0o700 })
  mount({
    target: upperMount,
    type: 'tmpfs',
    options: [`size=${size}`, `nr_inodes=${upperInodes}`, 'mode=0700'],
  })
  const [upper, work] = [join(upperMount, 'upper'), join(upperMount, 'work')]
  for (const directory of [upper, work]) await mkdir(directory)
  // The root directory itself has the owner and mode of the upper layer's.
  await chown(upper, hostId(0), hostId(0))
  await chmod(upper, 0o755)
  try {
    mount({
      target,
      type: 'overlay',
      options: [`lowerdir=${rootfs}`, `upperdir=${upper}`, `workdir=${work}`],
    })
  } catch (error) {
    throw new FaasError('RUNTIME_FAILED', 'a writable layer cannot be mounted over the image', {
      hint: 'FAAS_ROOT must not lie on an overlay file system; or deploy without --writable',
      cause: error,
    })
  }
  return target
}

/** Removes a bundle with what is mounted in it. What is not there is no error. */
export async function removeBundle(bundle: string): Promise<void> {
  detach(join(bundle, rootName))
  detach(join(bundle, upperName))
  await removeTree(bundle)
}

/** Writes the files of /etc that name the function into the instance's directory, and says where they go. */
export async function writePlatformFiles(
  directory: string,
  { name, etc }: Pick<ServedFunction, 'name' | 'etc'>,
): Promise<readonly BindMount[]> {
  if (etc === undefined) return []
  const texts = {
    [platformFiles.hosts]: `127.0.0.1\tlocalhost ${name}\n::1\tlocalhost ip6-localhost ip6-loopback ${name}\n`,
    [platformFiles.hostname]: `${name}\n`,
  }
  return Promise.all(
    Object.entries(texts).map(async ([file, text]) => {
      const source = join(directory, file)
      await writeFile(source, text)
      await chmod(source, 0o644)
      await chown(source, hostId(0), hostId(0))
      return { source, destination: join(etc, file), readOnly: true }
    }),
  )
}
