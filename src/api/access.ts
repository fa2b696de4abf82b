/**
 * Who may call the API over TCP, decided before anything else is looked at, for every path.
 * Web pages get nowhere: `Host` must be local (DNS rebinding), and whatever a browser adds to a request that comes
 * from a page is refused. Local users are told apart by the kernel: the uid that owns the caller's end of the
 * connection must be root's or a member's of the group `faas`. On the UNIX socket the file's mode decides.
 * Failures: HOST_REFUSED, ORIGIN_REFUSED, CALLER_REFUSED.
 */
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { FaasError } from '../values/errors.ts'

export interface Endpoint {
  readonly address: string
  readonly port: number
}

/** The uid that owns a local TCP socket, undefined when there is none with an owner. */
export type SocketOwner = (tuple: {
  readonly local: Endpoint
  readonly remote: Endpoint
}) => number | undefined

/** What is known of a local user. */
export interface LocalUser {
  readonly name: string
  readonly isMember: boolean
}
export type FindUser = (uid: number) => Promise<LocalUser>

const localHost = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::(\d{1,5}))?$/i

/** Throws HOST_REFUSED unless there is exactly one `Host`, it is local, and its port, if any, is ours. */
export function checkHost(rawHeaders: readonly string[], port: number): void {
  const hosts = rawHeaders.filter(
    (_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === 'host',
  )
  const [host] = hosts
  const match = hosts.length === 1 && host !== undefined ? localHost.exec(host) : null
  if (match && (match[1] === undefined || Number(match[1]) === port)) return
  const shown = hosts.length === 1 ? JSON.stringify(host?.slice(0, 80)) : `${hosts.length} of them`
  throw new FaasError('HOST_REFUSED', `the Host header must be localhost:${port}, got ${shown}`, {
    hint: `call http://localhost:${port} or the UNIX socket`,
  })
}

/** Throws ORIGIN_REFUSED for whatever a browser sends on behalf of a page. */
export function checkOrigin(headers: IncomingMessage['headers']): void {
  const site = headers['sec-fetch-site']
  const isFromPage = site !== undefined && site !== 'none'
  if (headers.origin === undefined && headers.referer === undefined && !isFromPage) return
  throw new FaasError('ORIGIN_REFUSED', 'requests from web pages are refused', {
    hint: 'call the API from a program, without Origin, Referer and Sec-Fetch-Site',
  })
}

/**
 * Makes the check of one connection's caller. The kernel is asked at once, while the caller's socket is sure to be
 * there; the user's groups are looked up at the first request. The verdict holds for the connection.
 */
export function createCallerCheck({
  socketOwner,
  findUser,
}: {
  socketOwner: SocketOwner
  findUser: FindUser
}) {
  const verdicts = new WeakMap<Socket, () => Promise<void>>()

  const judge = async (uid: number | undefined): Promise<void> => {
    if (uid === 0) return
    if (uid === undefined) {
      throw new FaasError('CALLER_REFUSED', 'the kernel names no owner of the calling socket', {
        hint: 'keep the connection open until the answer is there',
      })
    }
    const user = await findUser(uid)
    if (user.isMember) return
    throw new FaasError('CALLER_REFUSED', `the user ${user.name} may not call the API`, {
      hint: `as root: usermod -aG faas ${user.name} (then log in again), or use sudo`,
    })
  }

  return {
    /** Looks up the owner of a connection that was accepted just now. */
    connected(socket: Socket): void {
      const uid = ownerOf(socket, socketOwner)
      let verdict: Promise<void> | undefined
      verdicts.set(socket, () => {
        verdict ??= judge(uid)
        return verdict
      })
    },
    /** Throws CALLER_REFUSED; also for a connection that was never shown to `connected`. */
    async check(socket: Socket): Promise<void> {
      await (verdicts.get(socket) ?? (() => judge(undefined)))()
    },
  }
}

function ownerOf(socket: Socket, socketOwner: SocketOwner): number | undefined {
  const { remoteAddress, remotePort, localAddress, localPort } = socket
  if (remoteAddress === undefined || remotePort === undefined) return undefined
  if (localAddress === undefined || localPort === undefined) return undefined
  try {
    // The caller's own end of the connection: our remote is its local.
    return socketOwner({
      local: { address: remoteAddress, port: remotePort },
      remote: { address: localAddress, port: localPort },
    })
  } catch {
    // Out of descriptors, most likely: whoever is not known is refused, and the daemon goes on.
    return undefined
  }
}
