/**
 * The sockets that the API is served on: loopback TCP with the access rules of access.ts, and a UNIX socket whose
 * mode decides (0660 root:faas). Also what HTTP itself leaves open: time limits, malformed requests, CONNECT.
 * Failures: the errors of listen(2), with the address in the message.
 */
import { chown, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { FaasError, toFaasError } from '../values/errors.ts'
import { checkHost, checkOrigin, createCallerCheck, type FindUser, type SocketOwner } from './access.ts'
import { refuse, renderError } from './envelope.ts'

export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => void

export interface ListenOptions {
  /** Default 8080; 0 takes any free port. */
  readonly port?: number
  /** Path of the UNIX socket; none when left out. What is left of an earlier run is replaced: hold the lock. */
  readonly socketPath?: string
  /** Owning group of the UNIX socket; our own when left out. */
  readonly socketGid?: number | undefined
  readonly headersTimeoutMs?: number
  readonly handler: RequestHandler
  readonly socketOwner: SocketOwner
  readonly findUser: FindUser
}

export interface Listening extends AsyncDisposable {
  readonly port: number
  /** The TCP addresses served: without `::1` on a machine that has no IPv6 loopback. */
  readonly addresses: readonly string[]
}

const maxConnections = 1024
/** How long requests in flight have to finish when the API stops. */
const drainMs = 2_000

/** Serves `handler` until disposed. */
export async function listenApi(options: ListenOptions): Promise<Listening> {
  await using started = new AsyncDisposableStack()
  const caller = createCallerCheck(options)
  let port = options.port ?? 8080

  const guarded: RequestHandler = (request, response) => {
    checkAccess(request)
      .then(
        () => options.handler(request, response),
        (error: unknown) => refuse(request, response, toFaasError(error)),
      )
      // The handler answers for its own failures: what still comes here must not end the daemon.
      .catch(() => request.destroy())
  }
  const checkAccess = async (request: IncomingMessage): Promise<void> => {
    checkHost(request.rawHeaders, port)
    checkOrigin(request.headers)
    await caller.check(request.socket)
  }

  const addresses: string[] = []
  for (const host of ['127.0.0.1', '::1']) {
    const server = started.adopt(createApiServer(guarded, options), closeServer)
    server.on('connection', (socket: Socket) => caller.connected(socket))
    const isThere = await listen(server, { host, port }).catch(ignoreMissingLoopback(host))
    if (isThere === false) continue
    port = (server.address() as AddressInfo).port
    addresses.push(host)
  }

  if (options.socketPath !== undefined) {
    await rm(options.socketPath, { force: true })
    const server = started.adopt(createApiServer(options.handler, options), closeServer)
    await listenPrivately(server, options.socketPath)
    if (options.socketGid !== undefined) await chown(options.socketPath, 0, options.socketGid)
  }

  const running = started.move()
  return { port, addresses, [Symbol.asyncDispose]: () => running.disposeAsync() }
}

function createApiServer(handler: RequestHandler, { headersTimeoutMs = 10_000 }: ListenOptions): Server {
  const server = createServer(
    {
      headersTimeout: headersTimeoutMs,
      // The whole of a request may be a long upload: bodies have time limits of their own.
      requestTimeout: 0,
      keepAliveTimeout: 30_000,
      connectionsCheckingInterval: 1_000,
      // A missing Host is refused like a wrong one, in our form.
      requireHostHeader: false,
      insecureHTTPParser: false,
    },
    (request, response) => (request.url?.startsWith('/') ? handler : refuseForm)(request, response),
  )
  server.maxConnections = maxConnections
  // `Expect: 100-continue` is answered where the body is read: upload.ts, or server.ts for small bodies.
  server.on('checkContinue', (request, response) => server.emit('request', request, response))
  server.on('clientError', refuseMalformed)
  server.on('connect', (_request, socket) =>
    answerAndClose(socket, new FaasError('METHOD_NOT_ALLOWED', 'this is no proxy')),
  )
  return server
}

/** Absolute-form and `*`: nothing that a caller of ours sends. */
const refuseForm: RequestHandler = (request, response) =>
  refuse(request, response, new FaasError('NOT_FOUND', 'the request target must be a path'))

interface ClientError extends NodeJS.ErrnoException {
  /** The bytes that could not be read as HTTP. */
  readonly rawPacket?: Buffer
}

function refuseMalformed(error: ClientError, socket: Duplex): void {
  if (error.code === 'HPE_INVALID_METHOD' && /^[A-Z]+ /.test(String(error.rawPacket?.subarray(0, 32)))) {
    return answerAndClose(socket, new FaasError('METHOD_NOT_ALLOWED', 'unknown method'))
  }
  const reason =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? 'the headers took too long'
      : 'this is not HTTP/1.1 as it must be'
  answerAndClose(socket, new FaasError('REQUEST_INVALID', `${reason}${error.code ? ` (${error.code})` : ''}`))
}

function answerAndClose(socket: Duplex, error: FaasError): void {
  if (!socket.writable) return void socket.destroy()
  const body = renderError(error)
  socket.on('error', () => {})
  socket.end(
    `HTTP/1.1 ${error.status} Refused\r\nContent-Type: application/json; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    () => socket.destroy(),
  )
}

function listen(server: Server, where: { host: string; port: number } | { path: string }): Promise<true> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(where, () => {
      server.off('error', reject)
      resolve(true)
    })
  })
}

/** The socket file is never open to others, not even between bind(2) and chmod(2): libuv binds within the call. */
async function listenPrivately(server: Server, path: string): Promise<void> {
  const before = process.umask(0o117)
  try {
    const listening = listen(server, { path })
    process.umask(before)
    await listening
  } finally {
    process.umask(before)
  }
}

const ignoreMissingLoopback =
  (host: string) =>
  (error: NodeJS.ErrnoException): false => {
    if (host === '::1' && (error.code === 'EADDRNOTAVAIL' || error.code === 'EAFNOSUPPORT')) return false
    const hint = error.code === 'EADDRINUSE' ? { hint: 'find who holds it: ss -lntp' } : {}
    throw new FaasError('NOT_READY', `cannot serve the API: ${error.message}`, { ...hint, cause: error })
  }

/** Stops accepting, lets requests in flight finish for a moment, then closes what is left. */
async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => server.closeAllConnections(), drainMs)
  await closed
  clearTimeout(timer)
}
