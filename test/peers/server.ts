/**
 * The server's half of the network without the rest of faasd: WireGuard, firewall, CoreDNS, the peers' room, the API's vpn calls and
 * one function that says hello. Run inside a lab's server machine; it prints `ready`, and on the line `remake` (stdin)
 * makes wg0 anew below the running join service and prints `remade`. What it printed beside that are reports.
 */
import { spawn } from 'node:child_process'
import { mkdir, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Platform } from '../../src/api/platform.ts'
import { createApi } from '../../src/api/server.ts'
import { systemClock } from '../../src/host/clock.ts'
import { exec } from '../../src/host/exec.ts'
import { functionPool, functionPort, joinPort, serverAddress } from '../../src/net/addresses.ts'
import { createZoneFile, ensureCorefile } from '../../src/net/dns.ts'
import { createFirewall } from '../../src/net/firewall.ts'
import { createLinks } from '../../src/net/links.ts'
import { createWireguard } from '../../src/net/wireguard.ts'
import { ensureServerFiles } from '../../src/net/wireguard-files.ts'
import { findEndpoint } from '../../src/peers/endpoint.ts'
import { loadEndpointMemory } from '../../src/peers/endpoint-memory.ts'
import { loadInvitations } from '../../src/peers/invitations.ts'
import { startJoinService } from '../../src/peers/join-service.ts'
import { parsePublicKey } from '../../src/peers/keys.ts'
import { createPeerNetwork } from '../../src/peers/network.ts'
import { createPeerStore } from '../../src/peers/store.ts'
import { parseFunctionName } from '../../src/values/names.ts'

const root = '/var/lib/faasd'
const report = (message: string) => console.log(`report: ${message}`)
const hello = parseFunctionName('hello')
const address = functionPool.first

const wireguard = createWireguard({ exec })
const links = createLinks({ exec })
const serverPublicKey = parsePublicKey((await ensureServerFiles()).publicKey)
const bringUp = async () => {
  await wireguard.up(serverPublicKey)
  await links.applyAddresses([address])
}
await bringUp()
await createFirewall({ exec }).apply({ listeners: [{ address, port: functionPort }] })

const zonePath = join(root, 'dns', 'faas.db')
await createZoneFile({ path: zonePath }).apply([[hello, address]])
await ensureCorefile({ path: '/etc/coredns/Corefile', zonePath, upstreams: ['127.0.0.1:9'] })
spawn('coredns', ['-conf', '/etc/coredns/Corefile'], { stdio: 'ignore' })

const store = await createPeerStore({
  directory: '/etc/wireguard/peers',
  serverPublicKey,
  now: () => new Date(),
  report: ({ path, reason }) => report(`${path}: ${reason}`),
})
const network = createPeerNetwork({
  store,
  invitations: await loadInvitations({ path: join(root, 'invitations.json'), report }),
  wireguard,
  serverPublicKey,
  endpoints: await loadEndpointMemory(join(root, 'endpoints.json')),
  findEndpoint: () => findEndpoint(process.env.FAAS_VPN_ENDPOINT, { exec }),
  someFunction: () => hello,
  clock: systemClock,
  report,
})
await network.reconcile()
const service = startJoinService({ address: serverAddress, port: joinPort, network, report })

const unused = async () => new Map()
const api = await createApi({ platform: { version: '0', vpn: network, list: unused } as unknown as Platform })
await mkdir('/run/faasd', { recursive: true })
await rm('/run/faasd/api.sock', { force: true })
createServer((request, response) => api.routing(request, response)).listen('/run/faasd/api.sock')
createServer((_, response) => response.end('hello\n')).listen({ host: address, port: functionPort })
const other = createServer((_, response) => response.end('not for peers\n'))
other.listen({ host: '::', port: 8080 })

while (!service.isListening()) await systemClock.sleep(20)
console.log('ready')

for await (const line of createInterface({ input: process.stdin })) {
  if (line !== 'remake') continue
  await wireguard.down()
  await bringUp()
  await network.reconcile()
  console.log('remade')
}
