/** What a socket is, read from the socket itself: facts that its holder cannot change while we look. */
import { closeSync, fstatSync, statSync } from 'node:fs'
import { FaasError } from '../../values/errors.ts'
import * as libc from './libc.ts'

const SOL_SOCKET = 1
const SO_TYPE = 3
const SO_DOMAIN = 39
const SOCK_STREAM = 1
const AF_INET = 2
const AF_INET6 = 10
const SIOCGSKNS = 0x894c
const F_GETFL = 3
const F_SETFL = 4
const F_DUPFD_CLOEXEC = 1030
const O_NONBLOCK = 0o4000

const intOption = (fd: number, option: number): number | undefined => {
  const value = Buffer.alloc(4)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(4)
  return libc.getsockopt(fd, SOL_SOCKET, option, value, length) < 0 ? undefined : value.readInt32LE(0)
}

/** Whether it is an IPv4 or IPv6 stream socket. False for what is no socket. */
export function isTcp(fd: number): boolean {
  const domain = intOption(fd, SO_DOMAIN)
  return (domain === AF_INET || domain === AF_INET6) && intOption(fd, SO_TYPE) === SOCK_STREAM
}

/** Whether two descriptors are the same socket, in whichever process. */
export function isSameSocket(one: number, other: number): boolean {
  const [a, b] = [fstatSync(one), fstatSync(other)]
  return a.ino === b.ino && a.dev === b.dev
}

/**
 * Whether a socket belongs to the network namespace of `pid`. A socket keeps the namespace it was made in, wherever
 * it is passed. False when that cannot be told.
 */
export function isInNetworkOf(fd: number, pid: number): boolean {
  const namespace = libc.ioctl(fd, SIOCGSKNS, null)
  if (namespace < 0) return false
  try {
    return fstatSync(namespace).ino === statSync(`/proc/${pid}/ns/net`).ino
  } catch {
    return false
  } finally {
    closeSync(namespace)
  }
}

/** Gives a socket's description the blocking mode of another one's. */
export function copyBlockingMode(from: number, to: number): void {
  const wanted = libc.fcntl(from, F_GETFL, 0) & O_NONBLOCK
  const flags = libc.fcntl(to, F_GETFL, 0)
  if ((flags & O_NONBLOCK) !== wanted) libc.fcntl(to, F_SETFL, (flags & ~O_NONBLOCK) | wanted)
}

/** bind(2) with a copied address; 0, or the negative errno. */
export const bindCopy = (fd: number, address: Buffer): number =>
  libc.bind(fd, address, address.length) < 0 ? -libc.errnoNumber() : 0

/** listen(2); 0, or the negative errno. */
export const listenOn = (fd: number, backlog: number): number =>
  libc.listen(fd, backlog) < 0 ? -libc.errnoNumber() : 0

/** A duplicate of a descriptor, which the caller closes. */
export function duplicateFd(fd: number): number {
  const duplicate = libc.fcntl(fd, F_DUPFD_CLOEXEC, 0)
  if (duplicate < 0) throw new FaasError('SYSCALL_FAILED', `fcntl F_DUPFD_CLOEXEC: ${libc.lastErrno()}`)
  return duplicate
}
