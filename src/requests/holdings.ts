/**
 * What the processes of an instance hold: connections of the function, and its listeners. Read from `/proc`, whose
 * entries come and go while they are read: what has gone counts as nothing.
 */
import { readFileSync } from 'node:fs'
import { readdir, readlink } from 'node:fs/promises'
import { listTcp, tcpState } from '../host/native/inet-diag.ts'
import { pidfdOpen } from '../host/native/process.ts'
import { takeDescriptor } from '../host/native/seccomp-notify.ts'
import { closeFd } from '../host/native/sockets.ts'
import type { Ipv6 } from '../values/ipv6.ts'

const { established, closeWait, finWait1, finWait2, lastAck, listen } = tcpState

/** Links that one look reads at most: a hostile instance may hold millions. */
const maxLinks = 4096

/**
 * Descriptor numbers by the inode of the socket behind them, of each process. `isWhole` is false when there are more
 * than a look reads.
 */
async function socketsOf(
  pids: readonly number[],
): Promise<{ readonly byPid: ReadonlyMap<number, ReadonlyMap<number, number>>; readonly isWhole: boolean }> {
  const byPid = new Map<number, ReadonlyMap<number, number>>()
  let left = maxLinks
  for (const pid of pids) {
    const sockets = new Map<number, number>()
    byPid.set(pid, sockets)
    for (const name of (await readdir(`/proc/${pid}/fd`).catch(() => [])).values()) {
      if (left-- <= 0) return { byPid, isWhole: false }
      const target = await readlink(`/proc/${pid}/fd/${name}`).catch(() => '')
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1]
      if (inode !== undefined) sockets.set(Number(inode), Number(name))
    }
  }
  return { byPid, isWhole: true }
}

/** What is held of `address`, and whether that is all. */
async function lookAt(
  pids: readonly number[],
  address: Ipv6,
): Promise<{ readonly held: ReadonlySet<number>; readonly isWhole: boolean }> {
  const { byPid, isWhole } = await socketsOf(pids)
  const connections = listTcp([established, closeWait, finWait1, finWait2, lastAck])
  const inodes = new Set(connections.filter(({ local }) => local === address).map(({ inode }) => inode))
  const all = [...byPid.values()].flatMap((sockets) => [...sockets.keys()])
  return { held: new Set(all.filter((inode) => inodes.has(inode))), isWhole }
}

/** The connections at `address` that the processes hold, by their inodes, which the kernel does not use again soon. */
export const heldConnections = async (pids: readonly number[], address: Ipv6): Promise<ReadonlySet<number>> =>
  (await lookAt(pids, address)).held

/** Whether the processes hold no connection at `address`; false where there is too much to look at. */
export async function holdsNothing(pids: readonly number[], address: Ipv6): Promise<boolean> {
  const { held, isWhole } = await lookAt(pids, address)
  return isWhole && held.size === 0
}

/** Duplicates of the listeners at `address` that the processes hold, by port. The caller owns them. */
export async function takeHeldListeners(
  pids: readonly number[],
  address: Ipv6,
): Promise<ReadonlyMap<number, number>> {
  const { byPid } = await socketsOf(pids)
  const listeners = listTcp([listen]).filter(({ local }) => local === address)
  const taken = new Map<number, number>()
  for (const [pid, sockets] of byPid) {
    for (const { inode, localPort } of listeners) {
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
  const status = statusOf(pid)
  const mask = BigInt(`0x${/^SigCgt:\s+([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`)
  return ((mask >> BigInt(signal - 1)) & 1n) === 1n
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8')
  } catch {
    return ''
  }
}
