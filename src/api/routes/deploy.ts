/** `POST /api/new`: everything that can be refused is refused before the first byte of the body is asked for. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { FaasError } from '../../values/errors.ts'
import { parseFunctionName } from '../../values/names.ts'
import type { Deployed, Progress } from '../answers.ts'
import { operations } from '../contract.ts'
import { toDeployOptions } from '../deploy-options.ts'
import { discardBody, toApiError, toEnvelope } from '../envelope.ts'
import type { Platform } from '../platform.ts'
import { openUpload, type Upload, type UploadPace } from '../upload.ts'
import { readInput } from './route.ts'
import { linesOfJson, startStream, wantsLinesOfJson } from './streams.ts'

export interface DeployRouteDeps {
  readonly platform: Platform
  /** Shows a failure its way to the log, where it has no status left that would. */
  readonly reportFailure: (error: FaasError, request: FastifyRequest) => void
  readonly pace?: UploadPace | undefined
}

export function registerDeployRoute(
  app: FastifyInstance,
  { platform, reportFailure, pace }: DeployRouteDeps,
): void {
  // Any content type, untouched: curl's --data-binary says application/x-www-form-urlencoded.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, _payload, done) => done(null))
  app.route({
    method: operations.deploy.method,
    url: operations.deploy.path,
    bodyLimit: Number.MAX_SAFE_INTEGER,
    handler: async (request, reply) => {
      const name = parseFunctionName(onlyHeader(request, 'x-image-name'))
      const options = toDeployOptions(readInput(operations.deploy, request).query)
      refuseForms(request)
      const upload = openUpload(request.raw, reply.raw, pace ? { pace } : {})
      const lines = createProgressLines(request, reply, upload)
      try {
        const deployed = await platform.deploy(name, upload.body, options, upload.signal, lines.progress)
        const answer = inOrder(deployed)
        return lines.hasStarted() ? await lines.end({ result: answer }) : answer
      } catch (error) {
        if (!lines.hasStarted()) throw error
        const failure = toApiError(error)
        reportFailure(failure, request)
        return await lines.end(toEnvelope(failure))
      }
    },
  })
}

/** The guide's keys first and in its order, whatever order the platform has them in. */
export function inOrder({ name, ip, cmd, contract, version, warnings }: Deployed): Deployed {
  return { name, ip, cmd, contract, version, ...(warnings && warnings.length > 0 ? { warnings } : {}) }
}

/** The answer as lines of JSON, begun at the first step, so that an earlier failure still has a status of its own. */
function createProgressLines(request: FastifyRequest, reply: FastifyReply, { askForBody }: Upload) {
  const isWanted = wantsLinesOfJson(request)
  let started = false
  const write = (line: unknown) => reply.raw.write(`${JSON.stringify(line)}\n`)
  return {
    hasStarted: () => started,
    progress: ({ step, message }: Progress): void => {
      // A caller who does not read its progress loses it: it is never kept in memory.
      if (!isWanted || reply.raw.destroyed || reply.raw.writableNeedDrain) return
      if (!started) {
        // Nothing may come between: past the answer's head it is too late to ask.
        askForBody()
        startStream(reply, linesOfJson)
      }
      started = true
      write({ step, message })
    },
    end: async (line: unknown): Promise<void> => {
      write(line)
      await discardBody(request.raw)
      reply.raw.end()
    },
  }
}

function onlyHeader({ raw }: FastifyRequest, name: string): string | undefined {
  const values = raw.rawHeaders.filter(
    (_, index) => index % 2 === 1 && raw.rawHeaders[index - 1]?.toLowerCase() === name,
  )
  if (values.length > 1)
    throw new FaasError('REQUEST_INVALID', `the header ${name} is there ${values.length} times`)
  return values[0]
}

function refuseForms({ headers }: FastifyRequest): void {
  if (!headers['content-type']?.toLowerCase().startsWith('multipart/')) return
  throw new FaasError('REQUEST_INVALID', 'the body must be the archive itself, not a form', {
    hint: 'use curl --data-binary @FILE (or -T FILE -X POST), not -F',
  })
}
