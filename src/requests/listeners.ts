/**
 * The listening sockets of one function: made and kept by the host, and shared by whoever serves it. A listener
 * outlives versions and instances; it is closed when the function is removed.
 */
import type { PortMapping } from '../functions/function.ts'
import { closeFd, listenTcp } from '../host/native/sockets.ts'
import { passedSocketMark } from '../net/addresses.ts'
import type { Ipv6 } from '../values/ipv6.ts'

/** The shared accept queue: the kernel caps it at net.core.somaxconn. */
const backlog = 4096

export interface Listeners extends Disposable {
  /** By the port that the image binds. The descriptors stay ours. */
  readonly byTarget: ReadonlyMap<number, number>
  /** Opens what is new in `ports`, closes what is no longer there. Throws SYSCALL_FAILED. */
  setPorts(ports: readonly PortMapping[]): void
}

export function openListeners(address: Ipv6, ports: readonly PortMapping[]): Listeners {
  /** By the port of the address. */
  const open = new Map<number, number>()
  let byTarget: ReadonlyMap<number, number> = new Map()

  const setPorts = (wanted: readonly PortMapping[]): void => {
    for (const { port } of wanted) {
      if (!open.has(port)) open.set(port, listenTcp({ address, port, mark: passedSocketMark, backlog }))
    }
    const kept = new Set(wanted.map(({ port }) => port))
    for (const [port, fd] of open) {
      if (kept.has(port)) continue
      open.delete(port)
      closeFd(fd)
    }
    byTarget = new Map(wanted.map(({ port, target }) => [target, open.get(port) ?? -1]))
  }
  setPorts(ports)
  return {
    get byTarget() {
      return byTarget
    },
    setPorts,
    [Symbol.dispose]: () => setPorts([]),
  }
}
