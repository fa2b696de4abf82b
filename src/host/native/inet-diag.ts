/**
 * The kernel's table of IPv6 TCP sockets (sock_diag(7)), read whole in one go: what listens with how long an accept
 * queue, and which connections there are. Failures throw SYSCALL_FAILED.
 */
import { FaasError } from '../../values/errors.ts'
import { formatIpv6, type Ipv6 } from '../../values/ipv6.ts'
import * as libc from './libc.ts'

const AF_INET6 = 10
const AF_NETLINK = 16
const SOCK_RAW_CLOEXEC = 3 | 0o2000000
const NETLINK_SOCK_DIAG = 4
const IPPROTO_TCP = 6
const SOCK_DIAG_BY_FAMILY = 20
const NLM_F_REQUEST_DUMP = 1 | 0x300
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const headerBytes = 16
const requestBytes = 56
const answerBytes = 72
const bufferBytes = 256 * 1024

/** States as in <net/tcp_states.h>. */
export const tcpState = {
  established: 1,
  synReceived: 3,
  finWait1: 4,
  finWait2: 5,
  closeWait: 8,
  lastAck: 9,
  listen: 10,
} as const

export interface TcpSocket {
  readonly state: number
  readonly local: Ipv6
  readonly localPort: number
  /** For a listener the length of its accept queue, else bytes not read yet. */
  readonly receiveQueue: number
  readonly inode: number
}

/** Every IPv6 TCP socket of this network namespace in one of `states`. */
export function listTcp(states: readonly number[]): TcpSocket[] {
  const fd = libc.must(libc.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG), 'socket AF_NETLINK')
  try {
    const request = Buffer.alloc(headerBytes + requestBytes)
    request.writeUInt32LE(request.length, 0)
    request.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4)
    request.writeUInt16LE(NLM_F_REQUEST_DUMP, 6)
    request.writeUInt8(AF_INET6, 16)
    request.writeUInt8(IPPROTO_TCP, 17)
    request.writeUInt32LE(
      states.reduce((mask, state) => mask | (1 << state), 0),
      20,
    )
    libc.must(libc.send(fd, request, request.length, 0), 'send sock_diag')
    const sockets: TcpSocket[] = []
    const buffer = Buffer.alloc(bufferBytes)
    for (;;) {
      const bytes = libc.must(Number(libc.recv(fd, buffer, buffer.length, 0)), 'recv sock_diag')
      if (readMessages(buffer.subarray(0, bytes), sockets)) return sockets
    }
  } finally {
    libc.close(fd)
  }
}

/** Appends what one datagram holds; true at the end of the dump. */
function readMessages(datagram: Buffer, sockets: TcpSocket[]): boolean {
  for (let at = 0; at + headerBytes <= datagram.length; ) {
    const length = datagram.readUInt32LE(at)
    const type = datagram.readUInt16LE(at + 4)
    if (type === NLMSG_DONE) return true
    if (type === NLMSG_ERROR) throw new FaasError('SYSCALL_FAILED', 'sock_diag refused the dump')
    if (length < headerBytes + answerBytes) return true
    const body = at + headerBytes
    sockets.push({
      state: datagram.readUInt8(body + 1),
      localPort: datagram.readUInt16BE(body + 4),
      local: formatIpv6(datagram.subarray(body + 8, body + 24)),
      receiveQueue: datagram.readUInt32LE(body + 56),
      inode: datagram.readUInt32LE(body + 68),
    })
    at += (length + 3) & ~3
  }
  return false
}
