/**
 * What the kernel tells over netlink: that links, addresses or packet-filter rules changed (to look again, the
 * messages themselves are not read), and which user owns a local TCP socket (sock_diag(7)).
 * Failures throw SYSCALL_FAILED. The caller owns the descriptors.
 */
import { FaasError } from '../../values/errors.ts'
import { ipv6Bytes } from '../../values/ipv6.ts'
import * as libc from './libc.ts'

const AF_INET = 2
const AF_INET6 = 10
const AF_NETLINK = 16
const SOCK_RAW = 3
const SOCK_CLOEXEC = 0o2000000
const SOCK_NONBLOCK = 0o4000
const NETLINK_ROUTE = 0
const NETLINK_SOCK_DIAG = 4
const NETLINK_NETFILTER = 12
/** Multicast groups as bits: <linux/rtnetlink.h> RTMGRP_LINK and RTMGRP_IPV6_IFADDR; <linux/netfilter/nfnetlink.h> NFNLGRP_NFTABLES is 7. */
const linkAndAddressGroups = 0x1 | 0x100
const nftablesGroup = 1 << (7 - 1)
const IPPROTO_TCP = 6
const SOCK_DIAG_BY_FAMILY = 20
const NLM_F_REQUEST = 1
const NLMSG_ERROR = 2
const headerBytes = 16
const requestBytes = 56
const MSG_DONTWAIT = 0x40

function openMonitor(protocol: number, groups: number): number {
  const fd = libc.must(
    libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol),
    'socket AF_NETLINK',
  )
  const name = Buffer.alloc(12)
  name.writeUInt16LE(AF_NETLINK, 0)
  name.writeUInt32LE(groups, 8)
  if (libc.bind(fd, name, name.length) < 0) {
    const errno = libc.lastErrno()
    libc.close(fd)
    throw new FaasError('SYSCALL_FAILED', `bind AF_NETLINK: ${errno}`)
  }
  return fd
}

/** Readable when a link or an IPv6 address appears, changes or goes. */
export const openLinkMonitor = (): number => openMonitor(NETLINK_ROUTE, linkAndAddressGroups)

/** Readable when anything in nftables changes, in any table of this network namespace. */
export const openNftablesMonitor = (): number => openMonitor(NETLINK_NETFILTER, nftablesGroup)

/** Throws away what a monitor has to say, lost messages included: the watcher looks at the state itself. */
export function drainNetlink(fd: number): void {
  const scratch = Buffer.alloc(64 * 1024)
  // ENOBUFS says that messages were lost and clears itself: go on until nothing is left.
  for (let left = 1000; left > 0; left--) {
    if (libc.recv(fd, scratch, scratch.length, MSG_DONTWAIT) < 0 && libc.lastErrno() !== 'ENOBUFS') return
  }
}

export interface Endpoint {
  /** IPv4 or IPv6 text; an IPv4-mapped IPv6 address counts as IPv4. */
  readonly address: string
  readonly port: number
}

/**
 * The uid that owns the local TCP socket whose own end is `local` and whose other end is `remote`; undefined when
 * the kernel knows no such socket or no process holds it any more. Asked for one exact 4-tuple, so other sockets cost nothing.
 */
export function socketOwner({ local, remote }: { local: Endpoint; remote: Endpoint }): number | undefined {
  const fd = libc.must(
    libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG),
    'socket AF_NETLINK',
  )
  try {
    const request = renderDiagRequest(local, remote)
    libc.must(libc.send(fd, request, request.length, 0), 'send sock_diag')
    const answer = Buffer.alloc(8192)
    const bytes = libc.must(libc.recv(fd, answer, answer.length, 0), 'recv sock_diag')
    // inet_diag_msg: 4 bytes, then inet_diag_sockid (48), expires, rqueue, wqueue, uid, inode (4 each).
    if (bytes < headerBytes + 72 || answer.readUInt16LE(4) === NLMSG_ERROR) return undefined
    // A socket that its process has closed already has no inode, and kernels then name root as its owner.
    if (answer.readUInt32LE(headerBytes + 4 + 48 + 16) === 0) return undefined
    return answer.readUInt32LE(headerBytes + 4 + 48 + 12)
  } finally {
    libc.close(fd)
  }
}

/** `inet_diag_req_v2` behind its netlink header (<linux/inet_diag.h>). */
function renderDiagRequest(local: Endpoint, remote: Endpoint): Buffer {
  const from = plainIpv4(local.address)
  const to = plainIpv4(remote.address)
  const isIpv4 = !from.includes(':')
  const request = Buffer.alloc(headerBytes + requestBytes)
  request.writeUInt32LE(request.length, 0)
  request.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4)
  request.writeUInt16LE(NLM_F_REQUEST, 6)
  request.writeUInt8(isIpv4 ? AF_INET : AF_INET6, 16)
  request.writeUInt8(IPPROTO_TCP, 17)
  request.writeUInt32LE(0xffffffff, 20)
  request.writeUInt16BE(local.port, 24)
  request.writeUInt16BE(remote.port, 26)
  addressBytes(from).copy(request, 28)
  addressBytes(to).copy(request, 44)
  // INET_DIAG_NOCOOKIE: any incarnation of the socket.
  request.writeUInt32LE(0xffffffff, 64)
  request.writeUInt32LE(0xffffffff, 68)
  return request
}

const plainIpv4 = (address: string): string => address.replace(/^::ffff:(?=\d+\.)/i, '')

const addressBytes = (address: string): Buffer =>
  address.includes(':') ? ipv6Bytes(address) : Buffer.from(address.split('.').map(Number))
