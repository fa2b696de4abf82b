/**
 * The `fd` contract, as the guide's prototype has it: the image connects to `/control.sock` (a UNIX stream socket),
 * receives one message with the payload `SOCKET` and one descriptor (SCM_RIGHTS), which is the accepted TCP
 * connection; it answers and exits. One connection, one instance.
 *
 * The rules of the control socket (docs/security.md): one listening socket an instance, in a directory that only
 * root of the host can enter; it accepts once and is then closed and unlinked; nothing is ever read from it; it is
 * closed at once after the hand-over, so that nothing can be queued back.
 */
import { chmodSync, chownSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Poller } from '../host/native/poller.ts'
import { acceptUnix, closeFd, listenUnix, peerCredentials, sendDescriptor } from '../host/native/sockets.ts'
import type { BindMount, ContainerUser } from '../runtime/container.ts'
import { hostId, ID_BASE, ID_COUNT } from '../values/id-map.ts'

export const controlSocketDestination = '/control.sock'
/** Its name in the instance's directory; gone as soon as the instance has connected. */
export const controlSocketFile = 'c'
const payload = 'SOCKET'

export interface ControlSocket extends Disposable {
  /** Puts the socket into the container. */
  readonly mounts: readonly BindMount[]
}

/** An instance that has connected and waits for its descriptor. It owns one descriptor of ours. */
export interface WaitingHandler extends Disposable {
  /** Passes a duplicate of `connection`, which stays the caller's; false when the instance is gone. Only once. */
  handOver(connection: number): boolean
}

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
  const listener = listenUnix(path, { backlog: 1 })
  chownSync(path, hostId(user.uid), hostId(user.gid))
  chmodSync(path, 0o600)
  let open = true
  const close = (): void => {
    if (!open) return
    open = false
    poller.unwatch(listener)
    closeFd(listener)
    rmSync(path, { force: true })
  }
  poller.watch(listener, () => {
    const control = acceptUnix(listener)
    if (control === undefined) return
    if (!isContainerUser(control)) return closeFd(control)
    close()
    onConnect(waitingHandler(control))
  })
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

function waitingHandler(control: number): WaitingHandler {
  let open = true
  const close = (): void => {
    if (open) closeFd(control)
    open = false
  }
  return {
    handOver(connection) {
      const passed = open && sendDescriptor(control, payload, connection)
      close()
      return passed
    },
    [Symbol.dispose]: close,
  }
}
