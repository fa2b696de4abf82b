/**
 * Which descriptors of an instance the host's listener has replaced, and the sockets that were there before.
 *
 * Many servers bind their port twice, on an IPv4 socket and on an IPv6 one. Callers come by IPv6, so the listener
 * belongs on the IPv6 socket alone: a server that accepts an IPv6 caller on a socket that it knows as IPv4 reads a
 * truncated address (Python, C), or refuses such a caller at once (nginx). So when a process binds both, whichever is
 * first, its IPv4 socket is its own, bound inside of the container, where nobody calls. A process that binds an IPv4
 * socket only gets the listener there: it serves, and what it reads of its caller's address is worth nothing.
 */
import { bindCopy, duplicateFd, isSameSocket, listenOn } from '../host/native/socket-facts.ts'
import { closeFd } from '../host/native/sockets.ts'

/** Past it the oldest is forgotten: it keeps the listener. */
const maxKept = 32

export type Family = 4 | 6

export interface BoundSocket {
  /** The thread group that holds it, and its descriptor there. */
  readonly process: number
  readonly target: number
  readonly family: Family
  /** The port that the image binds. */
  readonly port: number
  /** What was bound, as `struct sockaddr`. */
  readonly address: Buffer
}

interface Kept extends BoundSocket {
  /** A duplicate of the socket that was replaced. Ours. */
  readonly own: number
  /** Of the image's own listen on it, which was not carried out. */
  backlog: number | undefined
}

export interface ReplacedSockets extends Disposable {
  /** Whether the process holds the listener of `port` already by a socket of `family`. */
  holds(process: number, port: number, family: Family, isHeld: (target: number) => boolean): boolean
  /** Remembers a socket that has just been replaced; `fd` stays the caller's. */
  add(socket: BoundSocket, fd: number): void
  /** Remembers that the image has called listen on a descriptor. */
  listening(process: number, target: number, backlog: number): void
  /**
   * Puts the process's IPv4 sockets for `port` back in their places, bound and listening inside, by `replace`, where
   * `isHeld` says that the listener is still there.
   */
  giveBack(
    process: number,
    port: number,
    isHeld: (target: number) => boolean,
    replace: (own: number, target: number) => void,
  ): void
}

export function createReplacedSockets(): ReplacedSockets {
  let kept: Kept[] = []
  const forget = (gone: readonly Kept[]): void => {
    for (const { own } of gone) closeFd(own)
    kept = kept.filter((socket) => !gone.includes(socket))
  }
  const of = (process: number, port: number, family: Family): Kept[] =>
    kept.filter((socket) => socket.process === process && socket.port === port && socket.family === family)

  return {
    holds: (process, port, family, isHeld) => of(process, port, family).some(({ target }) => isHeld(target)),
    add(socket, fd) {
      const { process, target } = socket
      forget(kept.filter((other) => other.process === process && other.target === target))
      kept.push({ ...socket, own: duplicateFd(fd), backlog: undefined })
      if (kept.length > maxKept) forget(kept.slice(0, 1))
    },
    listening(process, target, backlog) {
      for (const socket of kept)
        if (socket.process === process && socket.target === target) socket.backlog = backlog
    },
    giveBack(process, port, isHeld, replace) {
      const back = of(process, port, 4)
      for (const { own, target, address, backlog } of back) {
        if (!isHeld(target) || bindCopy(own, address) < 0) continue
        if (backlog !== undefined) listenOn(own, backlog)
        replace(own, target)
      }
      forget(back)
    },
    [Symbol.dispose]: () => forget(kept),
  }
}

/** A test of whether the descriptor that `take` duplicates is `listener`. */
export const isListener =
  (listener: number, take: (target: number) => number | undefined) =>
  (target: number): boolean => {
    const fd = take(target)
    if (fd === undefined) return false
    try {
      return isSameSocket(fd, listener)
    } finally {
      closeFd(fd)
    }
  }
