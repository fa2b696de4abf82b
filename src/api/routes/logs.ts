/** What a function printed, as text or as JSON lines, to the end or for as long as the caller stays. */
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { FastifyInstance } from 'fastify'
import type { LogLine } from '../answers.ts'
import { operations } from '../contract.ts'
import type { Platform } from '../platform.ts'
import { existingName, readInput } from './route.ts'
import { linesOfJson, startStream, wantsLinesOfJson } from './streams.ts'

const defaultTail = 100

export function registerLogRoute(app: FastifyInstance, platform: Platform): void {
  app.route({
    method: operations.logs.method,
    url: operations.logs.path,
    // HEAD would run the handler, and with `follow` never end.
    exposeHeadRoute: false,
    handler: async (request, reply) => {
      const { name, query } = readInput(operations.logs, request)
      const gone = new AbortController()
      reply.raw.on('close', () => gone.abort())
      const options = { follow: query.follow ?? false, tail: query.tail ?? defaultTail }
      const lines = await platform.logs(existingName(name), options, gone.signal)
      const asJson = wantsLinesOfJson(request)
      startStream(reply, asJson ? linesOfJson : 'text/plain; charset=utf-8')
      // Past the head there is no way to tell of a failure but to cut the answer short.
      await pipeline(Readable.from(render(lines, asJson ? renderJson : renderText)), reply.raw).catch(() =>
        reply.raw.destroy(),
      )
    },
  })
}

async function* render(
  lines: AsyncIterable<LogLine>,
  renderLine: (line: LogLine) => string,
): AsyncGenerator<string> {
  for await (const line of lines) yield renderLine(line)
}

const renderJson = (line: LogLine): string => `${JSON.stringify(line)}\n`
const renderText = (line: LogLine): string =>
  `${line.time} ${line.function}/${line.instance} ${line.stream}: ${line.text}\n`
