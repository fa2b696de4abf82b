/** What functions there are. */
import type { FastifyInstance } from 'fastify'
import { operations } from '../contract.ts'
import type { Platform } from '../platform.ts'
import { existingName, route } from './route.ts'

export function registerFunctionRoutes(app: FastifyInstance, platform: Platform): void {
  // fromEntries() defines each name as the object's own, so that `constructor` is a name like any other.
  route(app, operations.list, async () => Object.fromEntries(await platform.list()))
  route(app, operations.address, ({ name }) => platform.address(existingName(name)))
  route(app, operations.describe, ({ name }) => platform.describe(existingName(name)))
  route(app, operations.remove, ({ name }) => platform.remove(existingName(name)))
  route(app, operations.stats, ({ name }) => platform.stats(existingName(name)))
}
