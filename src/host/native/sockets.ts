/**
 * TCP and UNIX sockets as raw descriptors: the daemon accepts and hands over, and never reads a byte of a
 * connection, so no Node socket object stands behind them. All descriptors are close-on-exec, and all but accepted TCP
 * connections non-blocking.
 * Who gets a descriptor from here owns it and closes it with {@link closeFd} or {@link resetTcp}.
 * Failures throw SYSCALL_FAILED.
 */
import { FaasError } from '../../values/errors.ts'
import { formatIpv6, type Ipv6, ipv6Bytes } from '../../values/ipv6.ts'
import * as libc from './libc.ts'

const AF_UNIX = 1
const AF_INET6 = 10
const SOCK_STREAM = 1
const SOCK_CLOEXEC = 0o2000000
const SOCK_CLOEXEC_NONBLOCK = 0o2004000
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SO_LINGER = 13
const SO_PEERCRED = 17
const SO_MARK = 36
const SCM_RIGHTS = 1
const IPPROTO_IPV6 = 41
const IPV6_V6ONLY = 26
const IPV6_FREEBIND = 78
const MSG_NOSIGNAL = 0x4000
const sockaddrIn6Bytes = 28
const sockaddrUnBytes = 110
/** `sun_path` with its closing NUL (unix(7)). */
const maxUnixPathBytes = 108

const setInt = (fd: number, level: number, option: number, value: number, call: string): void => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value)
  libc.must(libc.setsockopt(fd, level, option, bytes, 4), call)
}

/** Runs `prepare` on a new socket and closes it again when that throws. */
function openSocket(family: number, prepare: (fd: number) => void): number {
  const fd = libc.must(libc.socket(family, SOCK_STREAM | SOCK_CLOEXEC_NONBLOCK, 0), 'socket')
  try {
    prepare(fd)
    return fd
  } catch (error) {
    libc.close(fd)
    throw error
  }
}

export interface TcpListenerOptions {
  readonly address: string
  /** 0 lets the kernel choose. */
  readonly port: number
  /** `SO_MARK`; accepted sockets inherit it. 0 sets none. */
  readonly mark: number
  readonly backlog: number
}

/**
 * A listening IPv6 socket. The address need not be on an interface yet (`IPV6_FREEBIND`): a listener outlives
 * an interface that is taken away and made again.
 */
export const listenTcp = ({ address, port, mark, backlog }: TcpListenerOptions): number =>
  openSocket(AF_INET6, (fd) => {
    setInt(fd, SOL_SOCKET, SO_REUSEADDR, 1, 'setsockopt SO_REUSEADDR')
    setInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, 'setsockopt IPV6_V6ONLY')
    setInt(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1, 'setsockopt IPV6_FREEBIND')
    if (mark !== 0) setInt(fd, SOL_SOCKET, SO_MARK, mark, 'setsockopt SO_MARK')
    const name = Buffer.alloc(sockaddrIn6Bytes)
    name.writeUInt16LE(AF_INET6, 0)
    name.writeUInt16BE(port, 2)
    ipv6Bytes(address).copy(name, 8)
    libc.must(libc.bind(fd, name, sockaddrIn6Bytes), `bind [${address}]:${port}`)
    libc.must(libc.listen(fd, backlog), 'listen')
  })

/** The port that an IPv6 socket is bound to. */
export function localPort(fd: number): number {
  const name = Buffer.alloc(sockaddrIn6Bytes)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(sockaddrIn6Bytes)
  libc.must(libc.getsockname(fd, name, length), 'getsockname')
  return name.readUInt16BE(2)
}

export interface AcceptedTcp {
  readonly fd: number
  /** The caller's address, proved by WireGuard's keys for what arrives on wg0. */
  readonly peer: Ipv6
  readonly peerPort: number
}

/**
 * The next waiting connection, or undefined when there is none (any more). It is blocking, as whoever it is passed to
 * expects of an accepted connection: O_NONBLOCK belongs to the open description, which both share. We only close it.
 */
export function acceptTcp(listener: number): AcceptedTcp | undefined {
  const name = Buffer.alloc(sockaddrIn6Bytes)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(sockaddrIn6Bytes)
  const fd = libc.accept4(listener, name, length, SOCK_CLOEXEC)
  if (fd >= 0) return { fd, peer: formatIpv6(name.subarray(8, 24)), peerPort: name.readUInt16BE(2) }
  const errno = libc.lastErrno()
  if (transientAcceptErrors.has(errno)) return undefined
  throw new FaasError('SYSCALL_FAILED', `accept4: ${errno}`)
}

/** Nothing there, or the connection was gone before it was taken (accept(2), "Error handling"). */
const transientAcceptErrors = new Set([
  'EAGAIN',
  'EWOULDBLOCK',
  'ECONNABORTED',
  'EINTR',
  'EPROTO',
  'ENETDOWN',
  'EHOSTUNREACH',
  'ENETUNREACH',
])

/**
 * A listening UNIX stream socket at `path`, which must not exist. Its owner and mode are the caller's to set, as
 * its directory must already keep others out. The caller unlinks it.
 */
export const listenUnix = (path: string, { backlog }: { backlog: number }): number =>
  openSocket(AF_UNIX, (fd) => {
    const bytes = Buffer.from(path)
    if (bytes.length >= maxUnixPathBytes) {
      throw new FaasError(
        'SYSCALL_FAILED',
        `the socket path is longer than ${maxUnixPathBytes - 1} bytes: ${path}`,
      )
    }
    const name = Buffer.alloc(sockaddrUnBytes)
    name.writeUInt16LE(AF_UNIX, 0)
    bytes.copy(name, 2)
    libc.must(libc.bind(fd, name, 2 + bytes.length + 1), `bind ${path}`)
    libc.must(libc.listen(fd, backlog), 'listen')
  })

/** The next waiting UNIX connection, or undefined when there is none. */
export function acceptUnix(listener: number): number | undefined {
  const fd = libc.accept4(listener, null, null, SOCK_CLOEXEC_NONBLOCK)
  if (fd >= 0) return fd
  const errno = libc.lastErrno()
  if (transientAcceptErrors.has(errno)) return undefined
  throw new FaasError('SYSCALL_FAILED', `accept4: ${errno}`)
}

export interface PeerCredentials {
  /** As seen from our own pid namespace; 0 where it is not visible there. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

/** Who connected a UNIX socket, as the kernel recorded it then (`SO_PEERCRED`). */
export function peerCredentials(fd: number): PeerCredentials {
  const credentials = Buffer.alloc(12)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(12)
  libc.must(libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length), 'getsockopt SO_PEERCRED')
  return {
    pid: credentials.readInt32LE(0),
    uid: credentials.readUInt32LE(4),
    gid: credentials.readUInt32LE(8),
  }
}

/**
 * Sends `payload` with one descriptor over a UNIX stream socket (`SCM_RIGHTS`, unix(7)). The receiver gets a
 * duplicate: the caller still owns `fd`. False when the receiver is gone or takes nothing.
 */
export function sendDescriptor(socket: number, payload: string, fd: number): boolean {
  const data = Buffer.from(payload)
  const iov = Buffer.alloc(16)
  iov.writeBigUInt64LE(libc.addressOf(data), 0)
  iov.writeBigUInt64LE(BigInt(data.length), 8)
  const control = Buffer.alloc(24)
  control.writeBigUInt64LE(20n, 0)
  control.writeInt32LE(SOL_SOCKET, 8)
  control.writeInt32LE(SCM_RIGHTS, 12)
  control.writeInt32LE(fd, 16)
  const message = Buffer.alloc(56)
  message.writeBigUInt64LE(libc.addressOf(iov), 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(libc.addressOf(control), 32)
  message.writeBigUInt64LE(24n, 40)
  return libc.sendmsg(socket, message, MSG_NOSIGNAL) === data.length
}

/** Closes a TCP connection with a reset, so that the other side knows at once (`SO_LINGER` of zero). */
export function resetTcp(fd: number): void {
  const linger = Buffer.alloc(8)
  linger.writeInt32LE(1, 0)
  libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, 8)
  libc.close(fd)
}

export const closeFd = (fd: number): void => void libc.close(fd)
