/** Answers that come line by line. */
import type { FastifyReply, FastifyRequest } from 'fastify'

export const linesOfJson = 'application/x-ndjson'

/** Whether the caller asked for one JSON object a line. */
export const wantsLinesOfJson = (request: FastifyRequest): boolean =>
  (request.headers.accept ?? '')
    .split(',')
    .some((type) => type.split(';', 1)[0]?.trim().toLowerCase() === linesOfJson)

/** Takes the answer out of fastify's hands and sends its head at once, before there is a first line. */
export function startStream(reply: FastifyReply, contentType: string): void {
  reply.hijack()
  reply.raw.writeHead(200, {
    'content-type': contentType,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  })
  reply.raw.flushHeaders()
}
