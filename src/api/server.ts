/**
 * The API as a fastify instance over a {@link Platform}: routes, parsing, and the one form of errors.
 * It serves nothing by itself: listen.ts puts it on its sockets, with the access rules before it.
 */
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { FaasError } from '../values/errors.ts'
import { allowedMethods } from './contract.ts'
import { isBodyPending, lingering, renderError, toApiError } from './envelope.ts'
import type { Platform } from './platform.ts'
import { registerDeployRoute } from './routes/deploy.ts'
import { registerFunctionRoutes } from './routes/functions.ts'
import { registerLogRoute } from './routes/logs.ts'
import { registerServiceRoutes } from './routes/service.ts'
import { registerVpnRoutes } from './routes/vpn.ts'
import type { UploadPace } from './upload.ts'

export interface ApiDeps {
  readonly platform: Platform
  /** Told of each failure that is ours (status 500 and up): what is returned to a caller is not logged otherwise. */
  readonly report?: (failure: {
    readonly method: string
    readonly path: string
    readonly error: FaasError
  }) => void
  readonly pace?: UploadPace
  /** How long a JSON body may take. Default 10,000. */
  readonly jsonBodyTimeoutMs?: number
}

const jsonBodyLimit = 64 * 1024
/** Longer names reach the check of names and get its answer; headers end at 16 KiB in any case. */
const maxNameLength = 16 * 1024

export async function createApi({
  platform,
  report,
  pace,
  jsonBodyTimeoutMs = 10_000,
}: ApiDeps): Promise<FastifyInstance> {
  const reportFailure = (error: FaasError, request: FastifyRequest) => {
    if (error.status >= 500) report?.({ method: request.method, path: pathOf(request), error })
  }
  const answerError = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const failure = toApiError(error)
    reportFailure(failure, request)
    return reply.code(failure.status).type('application/json; charset=utf-8').send(renderError(failure))
  }
  const app = Fastify({
    logger: false,
    bodyLimit: jsonBodyLimit,
    routerOptions: {
      maxParamLength: maxNameLength,
      ignoreTrailingSlash: false,
      ignoreDuplicateSlashes: false,
    },
    frameworkErrors: (error, request, reply) => void answerError(error, request, reply),
  })
  app.removeContentTypeParser('text/plain')
  app.setErrorHandler(answerError)
  app.setReplySerializer((payload) => `${JSON.stringify(payload)}\n`)

  app.setNotFoundHandler((request, reply) => {
    const methods = allowedMethods(pathOf(request))
    if (methods.length === 0) {
      throw new FaasError('NOT_FOUND', `there is no ${pathOf(request).slice(0, 200)}`, {
        hint: 'see /openapi.json',
      })
    }
    reply.header('allow', methods.join(', '))
    throw new FaasError('METHOD_NOT_ALLOWED', `${request.method} is not for this path`, {
      hint: `use ${methods.join(' or ')}`,
    })
  })

  app.addHook('onSend', async ({ raw }, reply, payload) => {
    if (!isBodyPending(raw) || typeof payload !== 'string') return payload
    reply.header('connection', 'close').header('content-length', Buffer.byteLength(payload))
    return lingering(raw, payload)
  })

  await app.register(async (json) => limitJsonBodies(json, platform, jsonBodyTimeoutMs))
  await app.register(async (archives) => registerDeployRoute(archives, { platform, reportFailure, pace }))
  await app.ready()
  return app
}

/** The routes with small bodies: `100 Continue` is sent for them, and a body that does not come is not waited for. */
function limitJsonBodies(json: FastifyInstance, platform: Platform, timeoutMs: number): void {
  json.addHook('onRequest', async ({ raw }, reply) => {
    if (!isBodyPending(raw)) return
    if (raw.headers.expect !== undefined) reply.raw.writeContinue()
    const timer = setTimeout(() => raw.destroy(), timeoutMs)
    raw.once('end', () => clearTimeout(timer)).once('close', () => clearTimeout(timer))
  })
  registerFunctionRoutes(json, platform)
  registerLogRoute(json, platform)
  registerVpnRoutes(json, platform)
  registerServiceRoutes(json, platform)
}

const pathOf = (request: FastifyRequest): string => request.url.split('?', 1)[0] ?? ''
