/**
 * Named pipes for what a container prints. A FIFO has a name, so that a daemon that comes back finds it again, and
 * whoever holds it open for reading and writing never gets SIGPIPE: a container outlives the daemon that reads it.
 * Failures throw SYSCALL_FAILED or Node's errors. The caller owns the descriptors.
 */
import { constants, openSync } from 'node:fs'
import * as libc from './libc.ts'

/** Makes a FIFO at `path` with mode 0600; one that exists already is kept. */
export function makeFifo(path: string): void {
  if (libc.mkfifo(path, 0o600) < 0) {
    const errno = libc.lastErrno()
    if (errno !== 'EEXIST') libc.must(-1, `mkfifo ${path}: ${errno}`)
  }
}

/** Our end: never blocks, and is never at its end while it is held. */
export const openFifoReader = (path: string): number =>
  openSync(path, constants.O_RDWR | constants.O_NONBLOCK)

/** The container's end, a description of its own: O_NONBLOCK must not be seen by programs that print. */
export const openFifoWriter = (path: string): number => openSync(path, constants.O_RDWR)

/** Reads what is there now, at most one buffer; 0 when nothing is. */
export const readAvailable = (fd: number, buffer: Buffer): number =>
  Math.max(0, Number(libc.read(fd, buffer, buffer.length)))
