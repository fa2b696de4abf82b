/**
 * Which directories of an image get a tmpfs in each instance, by its options. Pure.
 * Failures: IMAGE_CONFIG_INVALID for a volume whose content does not fit into one.
 */
import type { MountPoint } from '../images/mount-points.ts'
import type { Scratch } from '../runtime/container.ts'
import { FaasError } from '../values/errors.ts'
import type { FunctionOptions } from './function.ts'

/** A file takes whole pages of a tmpfs. */
const pageBytes = 4096
const mebibyte = 1024 * 1024

/** With a writable root, volumes need none: they are part of it. */
export function scratchOf(
  points: readonly MountPoint[],
  { limits, writable }: Pick<FunctionOptions, 'limits' | 'writable'>,
): readonly Scratch[] {
  return points
    .filter(({ volume }) => !volume || !writable)
    .map((point) => {
      const { path, uid, gid, mode, content } = point
      checkFits(point, limits.tmpBytes)
      return { path, uid, gid, mode, copy: content.entries > 0 }
    })
}

function checkFits({ path, volume, content }: MountPoint, tmpBytes: number): void {
  if (!volume) return
  if (!content.copyable) {
    throw new FaasError('IMAGE_CONFIG_INVALID', `what the image has in the volume ${path} cannot be copied`, {
      hint: 'deploy it with --writable, or remove sockets, FIFOs and needless files from it',
    })
  }
  const bytes = content.bytes + content.entries * pageBytes
  if (bytes <= tmpBytes) return
  const size = Math.ceil(bytes / mebibyte)
  throw new FaasError(
    'IMAGE_CONFIG_INVALID',
    `the image has ${size} MiB in the volume ${path}, and its tmpfs holds ${Math.floor(tmpBytes / mebibyte)} MiB`,
    { hint: `deploy it with --writable, or with --tmp ${size}Mi or more` },
  )
}
