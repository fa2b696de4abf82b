/** What functions there are. */
import type { FastifyInstance } from 'fastify'
import { FaasError } from '../../values/errors.ts'
import { operations } from '../contract.ts'
import type { Platform } from '../platform.ts'
import { inOrder } from './deploy.ts'
import { existingName, route } from './route.ts'

export function registerFunctionRoutes(app: FastifyInstance, platform: Platform): void {
  // fromEntries() defines each name as the object's own, so that `constructor` is a name like any other.
  route(app, operations.list, async () => Object.fromEntries(await platform.list()))
  route(app, operations.address, ({ name }) => platform.address(existingName(name)))
  route(app, operations.describe, ({ name }) => platform.describe(existingName(name)))
  route(app, operations.versions, async ({ name }) => [...(await platform.versions(existingName(name)))])
  route(app, operations.rollback, async ({ name, query, body }, _request, reply) => {
    if (query.version !== undefined && body.version !== undefined && query.version !== body.version) {
      throw new FaasError('REQUEST_INVALID', 'the query and the body name different versions')
    }
    const gone = new AbortController()
    reply.raw.on('close', () => gone.abort())
    return inOrder(await platform.rollback(existingName(name), body.version ?? query.version, gone.signal))
  })
  route(app, operations.remove, ({ name }) => platform.remove(existingName(name)))
  route(app, operations.stats, ({ name }) => platform.stats(existingName(name)))
}
