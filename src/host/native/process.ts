/**
 * Processes that are not our children by birth: a container's init is started by a runtime that ends, and is
 * inherited by the nearest subreaper, us. Ends are seen by pidfd, which a reused pid cannot confuse.
 */
import * as libc from './libc.ts'

const PR_SET_CHILD_SUBREAPER = 36
const SYS_pidfd_open = 434
const SYS_pidfd_send_signal = 424
const P_PID = 1
const P_PIDFD = 3
const WNOHANG_WEXITED = 1 | 4
const siginfoBytes = 128
const CLD_EXITED = 1

/** Orphaned descendants of this process become its children instead of pid 1's (prctl(2)). */
export const becomeSubreaper = (): void => {
  libc.must(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 'prctl PR_SET_CHILD_SUBREAPER')
}

/** A descriptor that becomes readable when the process ends, or undefined if it has ended. The caller closes it. */
export function pidfdOpen(pid: number): number | undefined {
  const fd = Number(libc.syscall(SYS_pidfd_open, pid, 0, 0, 0))
  return fd >= 0 ? fd : undefined
}

/** Sends a signal to the process behind a pidfd; false when it has ended. */
export const pidfdSignal = (pidfd: number, signal: number): boolean =>
  Number(libc.syscall(SYS_pidfd_send_signal, pidfd, signal, 0, 0)) === 0

export interface ExitStatus {
  /** Undefined where a signal ended it. */
  readonly code: number | undefined
  readonly signal: number | undefined
}

const reapBy = (kind: number, id: number): ExitStatus | undefined => {
  const info = Buffer.alloc(siginfoBytes)
  if (libc.waitid(kind, id, info, WNOHANG_WEXITED) < 0) return undefined
  // si_pid stays 0 where nothing has ended (waitid(2)); offsets as in <asm-generic/siginfo.h>, 64-bit.
  if (info.readInt32LE(12 + 4) === 0) return undefined
  const status = info.readInt32LE(24)
  return info.readInt32LE(8) === CLD_EXITED
    ? { code: status, signal: undefined }
    : { code: undefined, signal: status & 0x7f }
}

/** Takes the exit status of an ended child, once; undefined when it still runs or is not ours. */
export const reap = (pid: number): ExitStatus | undefined => reapBy(P_PID, pid)

/** As {@link reap}, named by a pidfd. */
export const reapPidfd = (pidfd: number): ExitStatus | undefined => reapBy(P_PIDFD, pidfd)
