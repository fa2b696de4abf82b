/**
 * mount(2) and umount2(2): no program is started for a mount that comes and goes with an instance or a version.
 * Failures: SYSCALL_FAILED with the errno's name.
 */
import * as libc from './libc.ts'

const MS_RDONLY = 1
const MS_NOSUID = 2
const MS_NODEV = 4
const MNT_DETACH = 2
const UMOUNT_NOFOLLOW = 8

/** A page, less the zero byte at its end. */
export const maxOptionBytes = 4095

export interface Mount {
  readonly target: string
  readonly type: 'tmpfs' | 'overlay'
  /** Of the file system, such as `size=1m`; at most {@link maxOptionBytes} together, and none may contain a comma. */
  readonly options: readonly string[]
  readonly readOnly?: boolean
}

/** Mounts without set-id programs and devices. */
export function mount({ target, type, options, readOnly = false }: Mount): void {
  const flags = MS_NOSUID | MS_NODEV | (readOnly ? MS_RDONLY : 0)
  const result = libc.mount(type, target, type, flags, options.join(','))
  libc.must(result, `mount ${type} on ${target}`)
}

/** Takes a mount away, now for everybody who has not got it yet and for good when nobody uses it. False where none is. */
export function detach(target: string): boolean {
  if (libc.umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) === 0) return true
  const errno = libc.lastErrno()
  if (errno === 'EINVAL' || errno === 'ENOENT') return false
  libc.must(-1, `umount ${target}: ${errno}`)
  return false
}
