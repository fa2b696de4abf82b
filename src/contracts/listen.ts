/**
 * The `listen` contract: an unmodified server that binds its port. Its `bind` is caught by seccomp user
 * notification and its socket replaced by the function's listener of the host, so that from then on it accepts
 * straight from the kernel. No copy of a byte passes through here, and nothing happens here once a server serves.
 *
 * Two calls are supervised, and each is decided on what its caller cannot change meanwhile: a copy of the address,
 * and a duplicate of the descriptor whose network namespace has been looked at.
 * - `bind` of a TCP socket to one of the function's ports: the descriptor becomes the host's listener, whatever the
 *   address, unless the same process has it on an IPv6 socket (replaced-sockets.ts). Any other port is bound by us, on
 *   the duplicate, and only if the socket belongs to the container's own network. UNIX
 *   sockets are let go on to bind by themselves while the instance has no socket of the host whose port it could name
 *   behind our back; afterwards we bind them too (unix-bind.ts).
 * - `listen` on the host's listener changes nothing (the image's own backlog would shorten the shared queue); on a
 *   socket of the container it is done by us.
 *
 * A server that cannot take IPv6 callers on its IPv4 socket gets a relay (relay.ts).
 *
 * O_NONBLOCK belongs to the description that all instances share: it is set as the replaced socket had it.
 */
import { closeSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Poller } from '../host/native/poller.ts'
import { pidfdOpen } from '../host/native/process.ts'
import {
  answerNotification,
  continueNotification,
  isWaiting,
  type Notification,
  readMemory,
  receiveNotification,
  receiveState,
  replaceDescriptor,
  takeDescriptor,
} from '../host/native/seccomp-notify.ts'
import {
  bindCopy,
  copyBlockingMode,
  isInNetworkOf,
  isSameSocket,
  isTcp,
  listenOn,
} from '../host/native/socket-facts.ts'
import { acceptUnix, closeFd, listenUnix } from '../host/native/sockets.ts'
import { bindUnixInside } from '../host/native/unix-bind.ts'
import { createRelays, openRelayPlace, type Relays, refusesIpv6Callers } from './relay.ts'
import { createReplacedSockets, isListener, type ReplacedSockets } from './replaced-sockets.ts'

/** Its name in the instance's directory: the runtime connects to it and sends the notification descriptor. */
export const notifySocketFile = 'n'

const calls = process.arch === 'x64' ? { bind: 49, listen: 50 } : { bind: 200, listen: 201 }
const AF_UNIX = 1
const AF_INET = 2
const AF_INET6 = 10
const EPERM = 1
const EBADF = 9
const EFAULT = 14
const EINVAL = 22
/** `sizeof(struct sockaddr_storage)`. */
const maxAddressBytes = 128
const O_CLOEXEC = 0o2000000
const EAGAIN = 11
const EPOLLIN = 1
const EPOLLHUP = 0x10
const turnMs = 50
const maxCallsPerTurn = 64
/** How often an instance's troubles are told. */
const troubleMs = 1_000
/** `sizeof(struct sockaddr_in6)` without the scope: a shorter address cannot bind an IPv6 socket. */
const minIpv6AddressBytes = 24

export interface Supervision extends Disposable {
  /** The path for `linux.seccomp.listenerPath`. */
  readonly path: string
}

export interface SuperviseOptions {
  /** The instance's directory, 0700. */
  readonly directory: string
  /** The host's listeners by the port that the image binds. They stay the caller's. */
  readonly listeners: ReadonlyMap<number, number>
  /** Whether sockets of the host may be given to functions now. */
  readonly mayPass: () => boolean
  /** Called for each `listen` on a host listener, with the image's port: from here on the image accepts. */
  readonly onListening: (port: number) => void
  /** Called for each other TCP port that is bound inside the container. */
  readonly onOtherPort?: (port: number) => void
  /** Called when a relay is put between the callers and a port of the image. */
  readonly onRelay?: (port: number) => void
  /** Called for what could not be answered; the caller of the call got an error. */
  readonly onTrouble: (message: string) => void
}

/** Listens for the runtime and then answers the instance's calls until disposed. */
export function superviseInstance(options: SuperviseOptions, poller: Poller): Supervision {
  const path = join(options.directory, notifySocketFile)
  const relays = createRelays(options)
  let toldMs = Number.NEGATIVE_INFINITY
  const onTrouble = (message: string): void => {
    if (performance.now() - toldMs < troubleMs) return
    toldMs = performance.now()
    options.onTrouble(message)
  }
  const supervised: Supervised = {
    ...options,
    onTrouble,
    given: false,
    replaced: createReplacedSockets(),
    relays,
  }
  const watched = new Map<number, (events: number) => void>()
  const watch = (fd: number, onReady: (events: number) => void): void => {
    watched.set(fd, onReady)
    poller.watch(fd, onReady)
  }
  const end = (fd: number): void => {
    if (!watched.delete(fd)) return
    poller.unwatch(fd)
    closeFd(fd)
  }

  /** A server binds a few times; one that does it in a loop pays with its own time, not with ours. */
  const pace = (descriptor: number): void => {
    const now = performance.now()
    if (now - turnStartMs > turnMs) {
      turnStartMs = now
      callsThisTurn = 0
    }
    if (++callsThisTurn < maxCallsPerTurn) return
    const onReady = watched.get(descriptor)
    if (!onReady) return
    poller.unwatch(descriptor)
    callsThisTurn = 0
    setTimeout(() => {
      if (watched.has(descriptor)) poller.watch(descriptor, onReady)
    }, turnMs).unref()
  }
  let turnStartMs = 0
  let callsThisTurn = 0

  const onState = (socket: number): void => {
    const state = receiveState(socket)
    if (state === undefined) return
    end(socket)
    for (const descriptor of state.descriptors) {
      watch(descriptor, (events) => {
        if ((events & EPOLLIN) !== 0) {
          pace(descriptor)
          const notification = receiveNotification(descriptor)
          if (notification) answer(descriptor, notification, supervised)
        } else if ((events & EPOLLHUP) !== 0) {
          // No process is left that the filter applies to; before Linux 6.11 a receive would wait for ever.
          end(descriptor)
        }
      })
    }
  }
  const listener = listenUnix(path, { backlog: 1 })
  watch(listener, () => {
    const socket = acceptUnix(listener)
    if (socket !== undefined) watch(socket, () => onState(socket))
  })
  return {
    path,
    [Symbol.dispose]() {
      for (const fd of [...watched.keys()]) end(fd)
      supervised.replaced[Symbol.dispose]()
      relays[Symbol.dispose]()
    },
  }
}

interface Supervised extends SuperviseOptions {
  readonly replaced: ReplacedSockets
  readonly relays: Relays
  /** Whether the instance has had a socket of the host, and with it a descriptor to try something with. */
  given: boolean
}

function answer(listener: number, notification: Notification, options: Supervised): void {
  const { id, call } = notification
  try {
    const value =
      call === calls.bind
        ? onBind(listener, notification, options)
        : onListen(listener, notification, options)
    if (value === 'continue') continueNotification(listener, id)
    else answerNotification(listener, id, value)
  } catch (error) {
    options.onTrouble(`a call of process ${notification.pid} could not be supervised: ${String(error)}`)
    answerNotification(listener, id, -EPERM)
  }
}

const toInt = (argument: bigint | undefined): number => Number(BigInt.asIntN(32, argument ?? 0n))

/** A duplicate of a process's descriptor, or undefined where there is none. The caller closes it. */
function takeFrom(process: number, target: number): number | undefined {
  const pidfd = pidfdOpen(process)
  if (pidfd === undefined) return undefined
  const fd = takeDescriptor(pidfd, target)
  closeFd(pidfd)
  return fd
}

/** A duplicate of the caller's descriptor for as long as `use` runs; -EBADF where it has none. */
function withDescriptor<T>(process: number, target: number, use: (fd: number) => T): T | number {
  const fd = takeFrom(process, target)
  if (fd === undefined) return -EBADF
  try {
    return use(fd)
  } finally {
    closeFd(fd)
  }
}

/** pidfd_open(2) takes thread group leaders only. */
function threadGroupOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^Tgid:\s+(\d+)$/m.exec(status)?.[1] ?? pid)
}

function onBind(
  listener: number,
  { id, pid, args }: Notification,
  supervised: Supervised,
): number | 'continue' {
  const { listeners, replaced, relays, onOtherPort } = supervised
  const target = toInt(args[0])
  const length = toInt(args[2])
  if (length < 2 || length > maxAddressBytes) return -EINVAL
  const address = readMemory(pid, args[1] ?? 0n, length)
  if (!address) return -EFAULT
  const family = address.readUInt16LE(0)
  const process = threadGroupOf(pid)
  if (family === AF_UNIX) {
    if (!supervised.given || length < minIpv6AddressBytes) return 'continue'
    return withDescriptor(process, target, (fd) =>
      isWaiting(listener, id) ? bindUnixInside(fd, pid, address) : -EBADF,
    )
  }
  return withDescriptor(process, target, (fd) => {
    const isOwn = isInNetworkOf(fd, pid)
    // After all that was read by the caller's number: it was the caller's own.
    if (!isWaiting(listener, id)) return -EBADF
    const isInternet = (family === AF_INET && length >= 16) || (family === AF_INET6 && length >= 24)
    const port = isInternet && isTcp(fd) ? address.readUInt16BE(2) : undefined
    const hostListener = listeners.get(port ?? 0)
    const bindInside = (): number => (isOwn ? bindCopy(fd, address) : -EPERM)
    if (port === undefined) return bindInside()
    if (hostListener === undefined) {
      onOtherPort?.(port)
      return bindInside()
    }
    const replace = (by: number, at: number): boolean =>
      replaceDescriptor(listener, id, { fd: by, target: at, closeOnExec: isCloseOnExec(pid, at) })
    const isHeld = isListener(hostListener, (at) => takeFrom(process, at))
    if (family === AF_INET && replaced.holds(process, port, 6, isHeld)) return bindInside()
    if (family === AF_INET && isOwn && refusesIpv6Callers(process)) {
      const place = openRelayPlace(process)
      if (!isWaiting(listener, id)) {
        closeSync(place.network)
        return -EBADF
      }
      relays.expect(port, { process, target }, place)
      return bindInside()
    }
    if (family === AF_INET6) {
      replaced.giveBack(process, port, isHeld, replace)
      relays.stop(port)
    }
    if (!supervised.mayPass()) return -EAGAIN
    supervised.given = true
    copyBlockingMode(fd, hostListener)
    if (!replace(hostListener, target)) return -EBADF
    if (isOwn) replaced.add({ process, target, family: family === AF_INET ? 4 : 6, port, address }, fd)
    return 0
  })
}

function onListen(
  notifications: number,
  { id, pid, args }: Notification,
  { listeners, replaced, relays, onListening }: Supervised,
): number {
  const [target, backlog] = [toInt(args[0]), toInt(args[1])]
  const process = threadGroupOf(pid)
  return withDescriptor(process, target, (fd) => {
    for (const [port, hostListener] of listeners) {
      if (!isSameSocket(fd, hostListener)) continue
      replaced.listening(process, target, backlog)
      onListening(port)
      return 0
    }
    if (!isInNetworkOf(fd, pid) || !isWaiting(notifications, id)) return -EPERM
    const result = listenOn(fd, backlog)
    if (result === 0) relays.start({ process, target })
    return result
  })
}

function isCloseOnExec(pid: number, fd: number): boolean {
  const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8')
  return (Number.parseInt(/^flags:\s+([0-7]+)$/m.exec(info)?.[1] ?? '0', 8) & O_CLOEXEC) !== 0
}
