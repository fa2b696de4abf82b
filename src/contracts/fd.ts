/**
 * The `fd` contract, as the guide's prototype has it: the image connects to `/control.sock` (a UNIX stream socket),
 * receives one message with the payload `SOCKET` and one descriptor (SCM_RIGHTS), which is the accepted TCP
 * connection; it answers and exits. One connection, one instance. Where it is allowed to (`--reuse`), it may instead
 * write the byte `n` when it has answered, and receive the next message on the same control connection.
 *
 * The rules of the control socket (docs/security.md): one listening socket an instance, in a directory that only
 * root of the host can enter; it accepts once and is then closed and unlinked. Without `--reuse` nothing is ever read
 * from it, and it is closed at once after the hand-over, so that nothing can be queued back. With it, single bytes
 * are read, at most one before and one after each hand-over, and never a descriptor; whatever else the instance sends
 * ends it.
 */
import { chmodSync, chownSync, existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Poller } from '../host/native/poller.ts'
import {
  acceptUnix,
  closeFd,
  listenUnix,
  peerCredentials,
  receiveByte,
  sendDescriptor,
} from '../host/native/sockets.ts'
import type { BindMount, ContainerUser } from '../runtime/container.ts'
import { hostId, ID_BASE, ID_COUNT } from '../values/id-map.ts'

export const controlSocketDestination = '/control.sock'
/** Its name in the instance's directory; gone as soon as the instance has connected. */
const controlSocketFile = 'c'
/** In the instance's directory until the first hand-over: tells a later daemon that no request is lost with it. */
const unusedFile = 'unused'
const payload = 'SOCKET'
const next = 'n'.charCodeAt(0)

export interface ControlSocket extends Disposable {
  /** Puts the socket into the container. */
  readonly mounts: readonly BindMount[]
}

export interface NextEvents {
  /** The instance says that it has answered and waits for the next connection. Nobody vouches for that. */
  onNext(): void
  /** It broke the protocol, and is to be ended. */
  onBreach(what: string): void
}

/** An instance that has connected and waits for its descriptor. It owns one descriptor of ours. */
export interface WaitingHandler extends Disposable {
  /** Keeps the control connection open after a hand-over, for the next one. */
  allowNext(events: NextEvents): void
  /** Passes a duplicate of `connection`, which stays the caller's; false when the instance is gone. */
  handOver(connection: number): boolean
}

/** Whether an instance never got a connection, by what an earlier daemon has left in its directory. */
export const isUnused = (directory: string): boolean => existsSync(join(directory, unusedFile))

/**
 * Listens in `directory` (0700) for the one connect of one instance and then calls `onConnect`. The socket belongs
 * to the image's user, since root inside a container has no capability to pass by a file's mode.
 */
export function openControlSocket(
  directory: string,
  user: ContainerUser,
  poller: Poller,
  onConnect: (handler: WaitingHandler) => void,
): ControlSocket {
  const path = join(directory, controlSocketFile)
  const unused = join(directory, unusedFile)
  writeFileSync(unused, '')
  using undo = new DisposableStack()
  const listener = undo.adopt(listenUnix(path, { backlog: 1 }), closeFd)
  chownSync(path, hostId(user.uid), hostId(user.gid))
  chmodSync(path, 0o600)
  let open = true
  const close = (): void => {
    if (!open) return
    open = false
    poller.unwatch(listener)
    held.dispose()
    rmSync(path, { force: true })
  }
  poller.watch(listener, () => {
    const control = acceptUnix(listener)
    if (control === undefined) return
    if (!isContainerUser(control)) return closeFd(control)
    close()
    onConnect(waitingHandler(control, unused, poller))
  })
  const held = undo.move()
  return {
    mounts: [{ source: path, destination: controlSocketDestination, readOnly: true }],
    [Symbol.dispose]: close,
  }
}

/** Only processes of containers have these ids; the directory's mode keeps other containers out. */
function isContainerUser(control: number): boolean {
  const { uid } = peerCredentials(control)
  return uid >= ID_BASE && uid < ID_BASE + ID_COUNT
}

function waitingHandler(control: number, unused: string, poller: Poller): WaitingHandler {
  let state: 'first' | 'waiting' | 'serving' | 'closed' = 'first'
  let events: NextEvents | undefined
  const close = (): void => {
    if (state === 'closed') return
    state = 'closed'
    poller.unwatch(control)
    closeFd(control)
  }
  const onReadable = ({ onNext, onBreach }: NextEvents): void => {
    const byte = receiveByte(control)
    if (byte === undefined) return
    if (state === 'serving') {
      // An image that only exits closes its side at some time: it asks for nothing more.
      if (byte === 'end') return close()
      if (byte === next) {
        state = 'waiting'
        return onNext()
      }
    }
    const what = byte === 'end' ? 'closed its control socket while it waited' : 'wrote what it must not'
    close()
    onBreach(`${what} at ${controlSocketDestination}`)
  }
  return {
    allowNext(wanted) {
      events = wanted
    },
    handOver(connection) {
      if (state !== 'first' && state !== 'waiting') return false
      // Before the connection goes: a daemon that dies in between must not take the instance for an unused one.
      if (state === 'first') rmSync(unused, { force: true })
      const passed = sendDescriptor(control, payload, connection)
      if (!passed || events === undefined) close()
      else {
        const { onNext, onBreach } = events
        if (state === 'first') poller.watch(control, () => onReadable({ onNext, onBreach }))
        state = 'serving'
      }
      return passed
    },
    [Symbol.dispose]: close,
  }
}
