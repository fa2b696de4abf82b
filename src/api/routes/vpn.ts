/** The devices of the network. */
import type { FastifyInstance } from 'fastify'
import { parsePeerName } from '../../values/names.ts'
import { operations } from '../contract.ts'
import type { Platform } from '../platform.ts'
import { route } from './route.ts'

export function registerVpnRoutes(app: FastifyInstance, { vpn }: Platform): void {
  route(app, operations.vpnCreate, ({ body }) => vpn.create(parsePeerName(body.name), body.public_key))
  route(app, operations.vpnInvite, ({ body }) => vpn.invite(parsePeerName(body.name)))
  route(app, operations.vpnList, async () => [...(await vpn.list())])
  route(app, operations.vpnRemove, async ({ name }) => {
    const peer = parsePeerName(name)
    await vpn.remove(peer)
    return { name: peer }
  })
}
