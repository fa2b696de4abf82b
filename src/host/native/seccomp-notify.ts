/**
 * Seccomp user notification (seccomp_unotify(2)): a supervised call of another process waits until we have answered
 * it. The listener descriptor comes from the OCI runtime over a UNIX socket (OCI runtime spec 1.0.2, "The Container
 * Process State"). Memory and descriptors of the caller can change while we look: what is decided is done here, on
 * copies, and never left to the caller's own call to do.
 * Failures throw SYSCALL_FAILED; a caller that has gone meanwhile is told apart ({@link receiveNotification}).
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { FaasError } from '../../values/errors.ts'
import * as libc from './libc.ts'

const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_CMSG_CLOEXEC = 0x40000000
/** `_IOWR('!', 0, struct seccomp_notif)` and its neighbours, <linux/seccomp.h>. */
const SECCOMP_IOCTL_NOTIF_RECV = 0xc0502100
const SECCOMP_IOCTL_NOTIF_SEND = 0xc0182101
const SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
const SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103
const SECCOMP_ADDFD_FLAG_SETFD = 1
const SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
const O_CLOEXEC = 0o2000000
const notificationBytes = 80
const responseBytes = 24
const addfdBytes = 24
const SYS_pidfd_getfd = 438
const maxStateBytes = 64 * 1024

export interface Notification {
  readonly id: bigint
  /** The calling thread, as our own pid namespace numbers it. */
  readonly pid: number
  /** The call's number on this architecture. */
  readonly call: number
  readonly args: readonly bigint[]
}

export interface ReceivedState {
  /** The container process state, JSON (OCI runtime spec). */
  readonly text: string
  /** The descriptors that came with it, in the order of the state's `fds`. The caller owns them. */
  readonly descriptors: readonly number[]
}

/** Reads one message with its descriptors from a connected UNIX stream socket. Undefined when nothing is there yet. */
export function receiveState(socket: number): ReceivedState | undefined {
  const data = Buffer.alloc(maxStateBytes)
  const control = Buffer.alloc(256)
  const iov = Buffer.alloc(16)
  iov.writeBigUInt64LE(libc.addressOf(data), 0)
  iov.writeBigUInt64LE(BigInt(data.length), 8)
  const message = Buffer.alloc(56)
  message.writeBigUInt64LE(libc.addressOf(iov), 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(libc.addressOf(control), 32)
  message.writeBigUInt64LE(BigInt(control.length), 40)
  const bytes = Number(libc.recvmsg(socket, message, MSG_CMSG_CLOEXEC))
  if (bytes < 0) {
    const errno = libc.lastErrno()
    if (errno === 'EAGAIN' || errno === 'EINTR') return undefined
    throw new FaasError('SYSCALL_FAILED', `recvmsg: ${errno}`)
  }
  const controlBytes = Number(message.readBigUInt64LE(40))
  return {
    text: data.toString('utf8', 0, bytes),
    descriptors: descriptorsIn(control.subarray(0, controlBytes)),
  }
}

/** The descriptors of all SCM_RIGHTS messages (cmsg(3); headers are 16 bytes, aligned to 8). */
function descriptorsIn(control: Buffer): number[] {
  const descriptors: number[] = []
  for (let at = 0; at + 16 <= control.length; ) {
    const length = Number(control.readBigUInt64LE(at))
    if (length < 16 || at + length > control.length) break
    if (control.readInt32LE(at + 8) === SOL_SOCKET && control.readInt32LE(at + 12) === SCM_RIGHTS) {
      for (let fd = at + 16; fd + 4 <= at + length; fd += 4) descriptors.push(control.readInt32LE(fd))
    }
    at += (length + 7) & ~7
  }
  return descriptors
}

/**
 * Takes the next waiting call, or undefined when there is none (any more): another thread was killed between poll
 * and here.
 */
export function receiveNotification(listener: number): Notification | undefined {
  const notification = Buffer.alloc(notificationBytes)
  if (libc.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, notification) < 0) {
    const errno = libc.lastErrno()
    if (errno === 'ENOENT' || errno === 'EINTR') return undefined
    throw new FaasError('SYSCALL_FAILED', `SECCOMP_IOCTL_NOTIF_RECV: ${errno}`)
  }
  return {
    id: notification.readBigUInt64LE(0),
    pid: notification.readUInt32LE(8),
    call: notification.readInt32LE(16),
    args: Array.from({ length: 6 }, (_, index) => notification.readBigUInt64LE(32 + index * 8)),
  }
}

/** Whether the caller still waits: what was read of `/proc/PID` before this call was the caller's own. */
export function isWaiting(listener: number, id: bigint): boolean {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(id)
  return libc.ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, buffer) === 0
}

/** Answers a call with a result (`value` ≥ 0) or, negative, an errno. False when the caller is gone. */
export function answerNotification(listener: number, id: bigint, value: number): boolean {
  const response = Buffer.alloc(responseBytes)
  response.writeBigUInt64LE(id, 0)
  if (value < 0) response.writeInt32LE(value, 16)
  else response.writeBigInt64LE(BigInt(value), 8)
  return libc.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response) === 0
}

/**
 * Lets the caller go on with its own call. What it then does is what its memory says then, not what was looked at:
 * only for calls whose outcome no decision rests on.
 */
export function continueNotification(listener: number, id: bigint): boolean {
  const response = Buffer.alloc(responseBytes)
  response.writeBigUInt64LE(id, 0)
  response.writeUInt32LE(SECCOMP_USER_NOTIF_FLAG_CONTINUE, 20)
  return libc.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response) === 0
}

/** Replaces the caller's descriptor `target` by a duplicate of `fd`. False when the caller is gone. */
export function replaceDescriptor(
  listener: number,
  id: bigint,
  { fd, target, closeOnExec }: { fd: number; target: number; closeOnExec: boolean },
): boolean {
  const request = Buffer.alloc(addfdBytes)
  request.writeBigUInt64LE(id, 0)
  request.writeUInt32LE(SECCOMP_ADDFD_FLAG_SETFD, 8)
  request.writeUInt32LE(fd, 12)
  request.writeUInt32LE(target, 16)
  request.writeUInt32LE(closeOnExec ? O_CLOEXEC : 0, 20)
  return libc.ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, request) >= 0
}

/** A duplicate of another process's descriptor (pidfd_getfd(2)), or undefined. The caller closes it. */
export function takeDescriptor(pidfd: number, target: number): number | undefined {
  const fd = Number(libc.syscall(SYS_pidfd_getfd, pidfd, target, 0, 0))
  return fd >= 0 ? fd : undefined
}

/** A copy of `length` bytes of a process's memory, or undefined where they cannot be read. */
export function readMemory(pid: number, address: bigint, length: number): Buffer | undefined {
  try {
    const memory = openSync(`/proc/${pid}/mem`, 'r')
    try {
      const bytes = Buffer.alloc(length)
      return readSync(memory, bytes, 0, length, Number(address)) === length ? bytes : undefined
    } finally {
      closeSync(memory)
    }
  } catch {
    return undefined
  }
}
