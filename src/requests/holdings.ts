/**
 * What the processes of an instance hold: connections of the function, and its listeners. Read from `/proc`, whose
 * entries come and go while they are read: what has gone counts as nothing.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { listTcp, type TcpSocket, tcpState } from '../host/native/inet-diag.ts'
import { pidfdOpen } from '../host/native/process.ts'
import { takeDescriptor } from '../host/native/seccomp-notify.ts'
import { closeFd } from '../host/native/sockets.ts'
import type { Ipv6 } from '../values/ipv6.ts'

const { established, closeWait, finWait1, finWait2, lastAck, listen } = tcpState

/** Descriptor numbers of a process by the inode of the socket behind them. */
function socketsOf(pid: number): ReadonlyMap<number, number> {
  const sockets = new Map<number, number>()
  for (const name of read(() => readdirSync(`/proc/${pid}/fd`)) ?? []) {
    const target = read(() => readlinkSync(`/proc/${pid}/fd/${name}`)) ?? ''
    const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1]
    if (inode !== undefined) sockets.set(Number(inode), Number(name))
  }
  return sockets
}

const read = <T>(attempt: () => T): T | undefined => {
  try {
    return attempt()
  } catch {
    return undefined
  }
}

/** The connections at `address` that the processes hold, by their inodes, which the kernel does not use again soon. */
export function heldConnections(pids: readonly number[], address: Ipv6): ReadonlySet<number> {
  const connections = listTcp([established, closeWait, finWait1, finWait2, lastAck])
  const inodes = new Set(connections.filter(({ local }) => local === address).map(({ inode }) => inode))
  const held = new Set<number>()
  for (const pid of pids) {
    for (const inode of socketsOf(pid).keys()) if (inodes.has(inode)) held.add(inode)
  }
  return held
}

/** How many connections at `address` the processes hold. */
export const countHeldConnections = (pids: readonly number[], address: Ipv6): number =>
  heldConnections(pids, address).size

/** Duplicates of the listeners at `address` that the processes hold, by port. The caller owns them. */
export function takeHeldListeners(pids: readonly number[], address: Ipv6): ReadonlyMap<number, number> {
  const listeners = listTcp([listen]).filter(({ local }) => local === address)
  const taken = new Map<number, number>()
  for (const pid of pids) {
    const sockets = socketsOf(pid)
    for (const { inode, localPort } of listeners as readonly TcpSocket[]) {
      const fd = sockets.get(inode)
      if (fd === undefined || taken.has(localPort)) continue
      const pidfd = pidfdOpen(pid)
      if (pidfd === undefined) continue
      const duplicate = takeDescriptor(pidfd, fd)
      closeFd(pidfd)
      if (duplicate !== undefined) taken.set(localPort, duplicate)
    }
  }
  return taken
}

/** Whether a process has a handler for a signal. As process 1 of a container it does not even see one without. */
export function catchesSignal(pid: number, signal: number): boolean {
  const status = read(() => readFileSync(`/proc/${pid}/status`, 'utf8')) ?? ''
  const mask = BigInt(`0x${/^SigCgt:\s+([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`)
  return ((mask >> BigInt(signal - 1)) & 1n) === 1n
}
