/**
 * Processes that are not our children by birth: a container's init is started by a runtime that ends, and is
 * inherited by the nearest subreaper, us. Ends are seen by pidfd, which a reused pid cannot confuse.
 */
import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
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

const orphanPatienceMs = 500

/**
 * Reaps ended children that nobody waits for: a runtime that fails in the middle of a start may leave the beginning of a
 * container to us, its subreaper. Whoever knows a child takes its status within a turn of the event loop, so what has
 * ended before a pause and is still there after it is nobody's. Never rejects; does not keep the process alive.
 */
export async function reapOrphans(): Promise<void> {
  const pause = () => delay(orphanPatienceMs, undefined, { ref: false })
  try {
    await pause()
    const before = await endedChildren()
    if (before.length === 0) return
    await pause()
    const after = new Set(await endedChildren())
    for (const pid of before) if (after.has(pid)) reap(pid)
  } catch {
    // /proc could not be read: a dead process more costs a line in its table
  }
}

/** Pids of our zombies (proc_pid_stat(5): state and parent follow the program's name in parentheses). */
async function endedChildren(): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const ended: number[] = []
  for (const pid of pids) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (state === 'Z' && Number(parent) === process.pid) ended.push(pid)
  }
  return ended
}
