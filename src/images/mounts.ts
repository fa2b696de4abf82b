/** The overlay mounts of root file systems. They outlive the daemon: /proc/self/mountinfo is all that is remembered. */
import { lstat, mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Exec } from '../host/exec.ts'
import { detach, maxOptionBytes, mount } from '../host/native/mounts.ts'

/**
 * Mount points of this process at or below `path`, the last mounted first. A path that is mounted on twice is there
 * twice (proc_pid_mountinfo(5)).
 */
export async function mountPointsBelow(path: string): Promise<readonly string[]> {
  return parseMountPoints(await readFile('/proc/self/mountinfo', 'utf8')).filter(
    (point) => point === path || point.startsWith(`${path}/`),
  )
}

/**
 * Whether something is mounted on a directory. Unlike the list of all mounts, it costs the same whatever else is
 * mounted: there is one for each version of each function.
 */
export async function isMountPoint(directory: string): Promise<boolean> {
  const [own, parent] = await Promise.all([lstat(directory), lstat(dirname(directory))])
  return own.dev !== parent.dev
}

export function parseMountPoints(mountinfo: string): readonly string[] {
  return mountinfo
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
    .map((field) =>
      field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
    )
    .map((field) => Buffer.from(field, 'latin1').toString('utf8'))
    .toReversed()
}

export interface OverlayMount {
  /** Directories, top first; no two the same. */
  readonly layers: readonly string[]
  readonly target: string
  /** Where a directory may be made for the length of the call. */
  readonly scratch: string
}

/**
 * Mounts a read-only overlay. All options together must fit into one page, which 128 long paths would not: so the
 * layers are named 0, 1, 2 … then in a directory of links, which overlayfs follows once, now.
 */
export async function mountOverlay({ layers, target, scratch }: OverlayMount, exec: Exec): Promise<void> {
  const options = ['userxattr', `lowerdir=${layers.join(':')}`]
  if (Buffer.byteLength(options.join(',')) <= maxOptionBytes)
    return mount({ target, type: 'overlay', options, readOnly: true })
  await mkdir(scratch, { recursive: true })
  const links = await mkdtemp(join(scratch, 'mount-'))
  try {
    await Promise.all(layers.map((layer, index) => symlink(layer, join(links, String(index)))))
    const lower = layers.map((_, index) => index).join(':')
    await exec(
      'mount',
      ['-n', '-t', 'overlay', '-o', `ro,nosuid,nodev,userxattr,lowerdir=${lower}`, 'overlay', target],
      {
        cwd: links,
        // From 2.39 on util-linux uses fsconfig(2), where a value has at most 255 bytes.
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', LIBMOUNT_FORCE_MOUNT2: 'always' },
      },
    )
  } finally {
    await rm(links, { recursive: true, force: true })
  }
}

/** Unmounts a mount point; one that is in use disappears from its place now and for good when it no longer is. */
export function unmount(target: string): void {
  detach(target)
}
