/**
 * The listening sockets of one function. Each set belongs to one version, because an instance that was given a
 * listener keeps it for as long as it lives, and must get no new connection once its version has been replaced. So
 * the next version has sockets of its own on the same address and port (`SO_REUSEPORT`), and from the moment at which
 * it listens the kernel gives new connections to them alone. The old version notices nothing: it finishes what it has
 * taken and what waits in its queue, and when the last holder of its sockets is gone, what still waits moves to the
 * new ones (`net.ipv4.tcp_migrate_req`, ip-sysctl).
 */
import type { PortMapping } from '../functions/function.ts'
import { listenOn } from '../host/native/socket-facts.ts'
import { bindTcp, closeFd, steerConnections } from '../host/native/sockets.ts'
import { passedSocketMark } from '../net/addresses.ts'
import { FaasError } from '../values/errors.ts'
import type { Ipv6 } from '../values/ipv6.ts'

/** The shared accept queue: the kernel caps it at net.core.somaxconn. */
const backlog = 4096

export interface Listeners {
  /** By the port that the image binds. The descriptors stay ours. */
  readonly byTarget: ReadonlyMap<number, number>
  /** Takes new connections, alone, from now on: for one port of the image, or for all. Throws SYSCALL_FAILED. */
  listen(target?: number): void
  /** Gives up our duplicates. What instances hold lives on until they close it. Idempotent. */
  close(): void
  /** To be told when the last instance that held these has ended: the kernel's order has changed. */
  gone(): void
}

export interface ListenerGroup {
  /** Binds sockets, or takes over `adopted` ones by the address's port. Throws SYSCALL_FAILED. */
  open(ports: readonly PortMapping[], adopted?: ReadonlyMap<number, number>): Listeners
  /** Whether new connections go to these, on every port that they share with others. */
  isNewest(listeners: Listeners): boolean
}

/** One socket in the kernel's order of those that listen at a port. */
interface Entry {
  readonly fd: number
  readonly owner: Listeners
}

export function createListenerGroup(address: Ipv6): ListenerGroup {
  /** By port, as the kernel has them: a new one is last, and the last one takes the place of one that goes. */
  const orders = new Map<number, Entry[]>()

  /** Newest first is what we want; a set whose descriptor is closed here cannot be named any more. */
  const steer = (port: number): void => {
    const order = orders.get(port) ?? []
    const newest = order.findLast(({ fd }) => fd >= 0)
    if (!newest || order.length < 2) return
    try {
      steerConnections(newest.fd, order.indexOf(newest))
    } catch {
      // A holder has shut its socket down: the kernel's order is another one then, and it chooses by itself.
    }
  }

  return {
    isNewest: (listeners) =>
      [...orders.values()].every(
        (order) => !order.some(({ owner }) => owner === listeners) || order.at(-1)?.owner === listeners,
      ),
    open(ports, adopted = new Map()) {
      const byTarget = new Map<number, number>()
      const portOf = new Map<number, number>()
      for (const { port, target } of ports) {
        byTarget.set(target, adopted.get(port) ?? bindTcp({ address, port, mark: passedSocketMark }))
        portOf.set(target, port)
      }
      let closed = false
      const listeners: Listeners = {
        byTarget,
        listen(wanted) {
          for (const [target, fd] of byTarget) {
            if (wanted !== undefined && wanted !== target) continue
            const port = portOf.get(target) ?? 0
            const order = orders.get(port) ?? []
            orders.set(port, order)
            // Once only: a holder that has shut it down would become the newest by listening again.
            if (order.some((entry) => entry.owner === listeners)) continue
            const result = listenOn(fd, backlog)
            if (result < 0) throw new FaasError('SYSCALL_FAILED', `listen on [${address}]: errno ${-result}`)
            order.push({ fd, owner: listeners })
            steer(port)
          }
        },
        close() {
          if (closed) return
          closed = true
          for (const fd of byTarget.values()) closeFd(fd)
          // Supervisors and relays share the map: a number that is closed must not be found in it.
          byTarget.clear()
          for (const order of orders.values()) {
            const at = order.findIndex(({ owner }) => owner === listeners)
            if (at >= 0) order[at] = { fd: -1, owner: listeners }
          }
        },
        gone() {
          listeners.close()
          for (const [port, order] of orders) {
            const at = order.findIndex(({ owner }) => owner === listeners)
            if (at < 0) continue
            const last = order.pop()
            if (last && at < order.length) order[at] = last
            steer(port)
          }
        },
      }
      return listeners
    },
  }
}
