/** The platform about itself. */
import type { FastifyInstance } from 'fastify'
import { operations } from '../contract.ts'
import { renderOpenApi } from '../openapi.ts'
import type { Platform } from '../platform.ts'
import { route } from './route.ts'

export function registerServiceRoutes(app: FastifyInstance, platform: Platform): void {
  const document = renderOpenApi(platform.version)
  route(app, operations.health, async (_input, _request, reply) => {
    const health = await platform.health()
    if (health.status === 'failing') reply.code(503)
    return health
  })
  route(app, operations.version, async () => ({ version: platform.version }))
  route(app, operations.metrics, () => platform.metrics())
  route(app, operations.openapi, async () => document)
}
