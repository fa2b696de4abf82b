/**
 * The network in which a version is tried: a namespace of its own with nothing in it but `lo`, and in it listeners
 * like the function's. Nobody but the daemon reaches them, and they lead nowhere.
 */
import type { PortMapping } from '../functions/function.ts'
import { createNetns } from '../host/native/netns.ts'
import type { Poller } from '../host/native/poller.ts'
import { acceptTcp, closeFd, connectTcp, listenTcp, localPort } from '../host/native/sockets.ts'
import { passedSocketMark } from '../net/addresses.ts'

const address = '::1'
/** For callers that are one after another. */
const backlog = 8

/** Both ends of a connection as a caller would make it. What has not been taken or closed goes with it. */
export interface ConnectedPair extends Disposable {
  /** To be handed over; still ours afterwards. */
  readonly accepted: number
  closeAccepted(): void
  /** The other end, which is then the taker's to close. */
  takeCaller(): number
}

export interface TrialNetwork extends Disposable {
  /** By the port that the image binds. The descriptors stay ours. */
  readonly listeners: ReadonlyMap<number, number>
  /** A connection on its way to the listener of a port of the function; the caller owns it. Throws SYSCALL_FAILED. */
  connect(port: number): number
  /** Throws SYSCALL_FAILED. */
  connectedPair(poller: Poller): Promise<ConnectedPair>
}

export function createTrialNetwork(ports: readonly PortMapping[]): TrialNetwork {
  using undo = new DisposableStack()
  const netns = undo.use(createNetns())
  const listen = (port: number): number =>
    netns.run(() => listenTcp({ address, port, mark: passedSocketMark, backlog }))
  const listeners = new Map(ports.map(({ port, target }) => [target, undo.adopt(listen(port), closeFd)]))
  const connect = (port: number): number => netns.run(() => connectTcp({ address, port }))
  const kept = undo.move()
  return {
    listeners,
    connect,
    async connectedPair(poller) {
      using listener = owned(listen(0))
      using caller = owned(connect(localPort(listener.fd)))
      const accepted = owned(await accept(listener.fd, poller))
      const other = owned(caller.take())
      return {
        accepted: accepted.fd,
        closeAccepted: () => accepted[Symbol.dispose](),
        takeCaller: () => other.take(),
        [Symbol.dispose]() {
          accepted[Symbol.dispose]()
          other[Symbol.dispose]()
        },
      }
    },
    [Symbol.dispose]: () => kept.dispose(),
  }
}

/** A descriptor that is closed once, unless it has been taken before. */
function owned(fd: number): { readonly fd: number; take(): number } & Disposable {
  let ours = true
  return {
    fd,
    take() {
      ours = false
      return fd
    },
    [Symbol.dispose]() {
      if (ours) closeFd(fd)
      ours = false
    },
  }
}

function accept(listener: number, poller: Poller): Promise<number> {
  return new Promise((resolve, reject) => {
    poller.watch(listener, () => {
      try {
        const accepted = acceptTcp(listener)
        if (!accepted) return
        poller.unwatch(listener)
        resolve(accepted.fd)
      } catch (error) {
        poller.unwatch(listener)
        reject(error)
      }
    })
  })
}
