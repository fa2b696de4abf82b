/**
 * Errors on the wire: `{"error":{"code","message","hint"}}` with the status of the code, and how they are sent while a
 * request's body is still coming: the answer at once, then the body is thrown away for a moment before the connection
 * closes, because a connection closed on unread bytes resets and can take the answer with it (RFC 9112 §9.6).
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { ZodError } from 'zod'
import { type ErrorCode, FaasError, toFaasError } from '../values/errors.ts'
import type { ErrorEnvelope } from './answers.ts'

/** How long what is left of a refused body is read and thrown away. */
const lingerMs = 2_000

export function toEnvelope(error: FaasError): ErrorEnvelope {
  const { code, message, hint } = error
  return { error: { code, message, ...(hint === undefined ? {} : { hint }) } }
}

export const renderError = (error: FaasError): string => `${JSON.stringify(toEnvelope(error))}\n`

/** What fastify or a route threw, as one of our errors. */
export function toApiError(thrown: unknown): FaasError {
  if (thrown instanceof FaasError) return thrown
  const { statusCode, code } = thrown as { statusCode?: unknown; code?: unknown }
  if (
    typeof code === 'string' &&
    code.startsWith('FST_') &&
    typeof statusCode === 'number' &&
    statusCode < 500
  ) {
    const hint =
      code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE'
        ? { hint: 'send JSON with "Content-Type: application/json"' }
        : {}
    return new FaasError('REQUEST_INVALID', (thrown as Error).message, { ...hint, cause: thrown })
  }
  return toFaasError(thrown)
}

/** Runs a schema's parse; its complaints become `code`, each with the name of what it is about. */
export function checked<T>(code: ErrorCode, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (!(error instanceof ZodError)) throw error
    const complaints = error.issues.map(({ path, message }) =>
      path.length > 0 ? `${path.join('.')}: ${message}` : message,
    )
    throw new FaasError(code, complaints.join('; '), { hint: 'see /openapi.json for what this call takes' })
  }
}

/** Whether bytes of the request's body may still come. */
export function isBodyPending({ complete, readableEnded, headers }: IncomingMessage): boolean {
  if (complete || readableEnded) return false
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** Resolves when the rest of the body has been thrown away, the caller has gone, or the time is over. */
export async function discardBody(request: IncomingMessage): Promise<void> {
  if (request.complete || request.readableEnded || request.destroyed) return
  const over = new AbortController()
  const stop = () => over.abort()
  request.on('end', stop).on('close', stop).on('error', stop).resume()
  await delay(lingerMs, undefined, { signal: over.signal }).catch(() => {})
}

/** `text`, then nothing until the body has been thrown away: an answer that outlives an unread body. */
export function lingering(request: IncomingMessage, text: string): Readable {
  return Readable.from(
    (async function* () {
      yield Buffer.from(text)
      await discardBody(request)
    })(),
    { objectMode: false },
  )
}

/** Answers outside of any route, and closes the connection afterwards. */
export function refuse(
  request: IncomingMessage,
  response: ServerResponse,
  error: FaasError,
  headers = {},
): void {
  const text = renderError(error)
  response.writeHead(error.status, {
    ...headers,
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    connection: 'close',
  })
  if (request.method === 'HEAD') response.end()
  else if (isBodyPending(request)) lingering(request, text).pipe(response)
  else response.end(text)
}
