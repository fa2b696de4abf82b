/** Tells callers at once that nobody will answer: their connections are taken and reset. */
import type { PortMapping } from '../functions/function.ts'
import type { Poller } from '../host/native/poller.ts'
import { acceptTcp, resetTcp } from '../host/native/sockets.ts'
import type { ListenerGroup } from './listeners.ts'

/** Resets what waits at a listener that no instance has ever had. Answers how many. Throws SYSCALL_FAILED. */
export function refuseQueued(listener: number): number {
  let refused = 0
  for (let taken = acceptTcp(listener); taken; taken = acceptTcp(listener)) {
    resetTcp(taken.fd)
    refused++
  }
  return refused
}

/** Takes all new connections at `ports` from whoever listens there, and refuses them, until disposed. */
export function refuseConnections(
  group: ListenerGroup,
  ports: readonly PortMapping[],
  poller: Poller,
): Disposable {
  const refusing = group.open(ports)
  refusing.listen()
  const listeners = [...refusing.byTarget.values()]
  for (const listener of listeners) poller.watch(listener, () => void refuseQueued(listener))
  return {
    [Symbol.dispose]() {
      for (const listener of listeners) poller.unwatch(listener)
      refusing.gone()
    },
  }
}
