/**
 * The join service: HTTP on [fd00:faa5:0:100::1]:51821, reached only through the tunnel and, by the firewall, only from
 * quarantine addresses. `POST /join {"public_key"}` answers `{"name","ipv6","server_public_key","endpoint"}`. Who asks is
 * known by the source address, which WireGuard ties to the invitation's one-time key (cryptokey routing).
 * Errors are `{"error":{"code","message","hint"}}`, as the API has them.
 *
 * wg0 may come after faasd and may be made anew below it: binding is tried until the address is there, and a
 * listening socket outlives its address, so that once bound it stays.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { z } from 'zod'
import { FaasError, toFaasError } from '../values/errors.ts'
import { parseIpv6 } from '../values/ipv6.ts'
import type { PeerNetwork } from './network.ts'

export interface JoinService extends AsyncDisposable {
  /** Whether the socket is bound; until then binding goes on in the background. */
  isListening(): boolean
}

export interface JoinServiceDeps {
  readonly address: string
  readonly port: number
  readonly network: Pick<PeerNetwork, 'redeem'>
  readonly report: (message: string) => void
}

const maxBodyBytes = 4096
const maxHeaderBytes = 4096
const timeoutMs = 10_000
const maxConnections = 64
const retryMs = 500

const request = z.strictObject({ public_key: z.string().max(100) })

export function startJoinService({ address, port, network, report }: JoinServiceDeps): JoinService {
  const server = createServer(
    {
      maxHeaderSize: maxHeaderBytes,
      headersTimeout: timeoutMs,
      requestTimeout: timeoutMs,
      connectionsCheckingInterval: 1_000,
      keepAlive: false,
    },
    (incoming, response) => void answer(incoming, response),
  )
  server.maxConnections = maxConnections
  server.setTimeout(2 * timeoutMs)

  async function answer(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      if (incoming.url !== '/join') throw new FaasError('NOT_FOUND', 'there is only POST /join here')
      if (incoming.method !== 'POST')
        throw new FaasError('METHOD_NOT_ALLOWED', 'only POST is understood here')
      const source = parseIpv6(incoming.socket.remoteAddress ?? '')
      const { public_key } = parseRequest(await readBody(incoming))
      send(response, 200, await network.redeem(source, public_key))
    } catch (thrown) {
      const error = toFaasError(thrown)
      if (error.status >= 500) report(`a device could not join: ${error.message}`)
      const { code, message, hint } = error
      send(response, error.status, { error: { code, message, ...(hint === undefined ? {} : { hint }) } })
    }
  }

  let retry: NodeJS.Timeout | undefined
  let isClosed = false
  let lastTrouble = ''
  const listen = () => void server.listen({ host: address, port, ipv6Only: true })
  server.on('error', (error: NodeJS.ErrnoException) => {
    // EADDRNOTAVAIL only means that wg0 is not up yet.
    if (error.code !== 'EADDRNOTAVAIL' && error.message !== lastTrouble) {
      report(`the join service cannot listen on [${address}]:${port}, trying again: ${error.message}`)
      lastTrouble = error.message
    }
    if (!isClosed) retry = setTimeout(listen, retryMs)
  })
  listen()

  return {
    isListening: () => server.listening,
    async [Symbol.asyncDispose]() {
      isClosed = true
      clearTimeout(retry)
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    connection: 'close',
  })
  response.end(text)
}

async function readBody(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > maxBodyBytes) {
      throw new FaasError('REQUEST_INVALID', `the body is longer than ${maxBodyBytes} bytes`)
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parseRequest(body: string): z.infer<typeof request> {
  try {
    return request.parse(JSON.parse(body))
  } catch (cause) {
    throw new FaasError('REQUEST_INVALID', 'expected {"public_key": "…"} and nothing else', { cause })
  }
}
