import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { eventually } from '../host/eventually.ts'
import type { PeerRoute } from '../net/wireguard.ts'
import { FaasError } from '../values/errors.ts'
import { parsePeerName } from '../values/names.ts'
import { decodeCode } from './code.ts'
import { loadEndpointMemory } from './endpoint-memory.ts'
import { loadInvitations } from './invitations.ts'
import { generateKeyPair, publicKeyOf } from './keys.ts'
import { createPeerNetwork, type PeerNetworkDeps } from './network.ts'
import { createPeerStore } from './store.ts'

const server = generateKeyPair()
const named = parsePeerName
const newKey = () => generateKeyPair().publicKey
const refuses = (code: string) => (error: unknown) => error instanceof FaasError && error.code === code

/** A network on a temporary directory with a WireGuard that only remembers, and a clock that is set by hand. */
async function newNetwork(context: TestContext, deps: Partial<PeerNetworkDeps> & { root?: string } = {}) {
  const root = deps.root ?? (await mkdtemp(join(tmpdir(), 'faasd-network-')))
  context.after(() => rm(root, { recursive: true, force: true }))
  const state = {
    now: Date.parse('2026-03-01T10:00:00Z'),
    peers: [] as readonly PeerRoute[],
    handshakes: new Map<string, number>(),
    endpoints: new Map<string, string>(),
    nudged: [] as string[],
    isDown: false,
    reports: [] as string[],
  }
  const report = (message: string) => void state.reports.push(message)
  const now = () => new Date(state.now)
  const store = await createPeerStore({
    directory: join(root, 'peers'),
    serverPublicKey: server.publicKey,
    now,
    report: ({ path, reason }) => report(`${path}: ${reason}`),
  })
  const invitations = await loadInvitations({ path: join(root, 'invitations.json'), report })
  const network = createPeerNetwork({
    store,
    invitations,
    serverPublicKey: server.publicKey,
    endpoints: await loadEndpointMemory(join(root, 'endpoints.json')),
    wireguard: {
      async applyPeers(peers) {
        if (state.isDown) throw new FaasError('COMMAND_FAILED', 'wg set: no such device')
        state.peers = peers
      },
      async dump() {
        if (state.isDown) throw new FaasError('COMMAND_FAILED', 'wg show: no such device')
        const peers = state.peers.map(({ publicKey, address }) => ({
          publicKey,
          endpoint: state.endpoints.get(publicKey),
          allowedIps: [`${address}/128`],
          latestHandshakeSeconds: state.handshakes.get(publicKey),
          receivedBytes: 0,
          sentBytes: 0,
        }))
        return { publicKey: server.publicKey, listenPort: 51820, peers }
      },
    },
    findEndpoint: async () => ({ endpoint: { host: '203.0.113.1', port: 51820 }, source: 'stated' }),
    clock: { now, monotonicMs: () => state.now, sleep: async () => {} },
    report,
    nudge: (address) => void state.nudged.push(address),
    ...deps,
  })
  context.after(() => network[Symbol.asyncDispose]())
  return { network, state, root, store, invitations }
}

test('create() answers what a device needs, tells WireGuard, and answers the same again', async (context) => {
  const { network, state } = await newNetwork(context)
  const key = newKey()
  const expected = {
    ipv6: 'fd00:faa5:0:100::a',
    server_public_key: server.publicKey,
    endpoint: '203.0.113.1:51820',
  }
  assert.deepEqual(await network.create(named('laptop'), key), expected)
  assert.deepEqual(await network.create(named('laptop'), key), expected)
  assert.deepEqual(state.peers, [{ publicKey: key, address: 'fd00:faa5:0:100::a', endpoint: undefined }])
})

test('create() without an endpoint adds nothing', async (context) => {
  const findEndpoint = async () => {
    throw new FaasError('ENDPOINT_UNKNOWN', 'none')
  }
  const { network, store } = await newNetwork(context, { findEndpoint })
  await assert.rejects(network.create(named('laptop'), newKey()), refuses('ENDPOINT_UNKNOWN'))
  assert.deepEqual(store.list(), [])
})

test('a peer that WireGuard could not be told of is there when asked again, and told of later', async (context) => {
  const { network, state } = await newNetwork(context)
  const key = newKey()
  state.isDown = true
  await assert.rejects(network.create(named('laptop'), key), refuses('COMMAND_FAILED'))
  assert.equal((await network.list())[0]?.status, 'unknown')
  state.isDown = false
  await network.create(named('laptop'), key)
  assert.equal(state.peers[0]?.publicKey, key)
})

test('an invitation opens one quarantine address for one key, and its file has no private key', async (context) => {
  const { network, state, root } = await newNetwork(context)
  const invited = await network.invite(named('laptop'))
  assert.equal(invited.expires, '2026-03-01T11:00:00.000Z')
  const code = decodeCode(invited.code)
  const oneTime = publicKeyOf(code.oneTimePrivateKey)
  assert.deepEqual(state.peers, [{ publicKey: oneTime, address: 'fd00:faa5:0:200::a', endpoint: undefined }])
  const path = join(root, 'invitations.json')
  assert.ok(!(await readFile(path, 'utf8')).includes(code.oneTimePrivateKey))
  assert.equal((await stat(path)).mode & 0o777, 0o600)
})

test('redeem() binds to the first key, answers it again, and refuses every other', async (context) => {
  const { network, state } = await newNetwork(context, { someFunction: () => 'fibonacci' })
  const { address, oneTimePrivateKey } = decodeCode((await network.invite(named('laptop'))).code)
  const key = newKey()
  await assert.rejects(network.redeem(address, publicKeyOf(oneTimePrivateKey)), refuses('PEER_KEY_TAKEN'))
  await assert.rejects(network.redeem(address, server.publicKey), refuses('PEER_KEY_TAKEN'))
  await assert.rejects(network.redeem(address, 'nonsense'), refuses('PEER_KEY_INVALID'))
  const answer = await network.redeem(address, key)
  assert.deepEqual(answer, {
    name: 'laptop',
    ipv6: 'fd00:faa5:0:100::a',
    server_public_key: server.publicKey,
    endpoint: '203.0.113.1:51820',
    function: 'fibonacci',
  })
  assert.deepEqual(await network.redeem(address, key), answer)
  await assert.rejects(network.redeem(address, newKey()), refuses('INVITATION_INVALID'))
  // The one-time key stays until the answer is known to have arrived.
  assert.deepEqual(
    state.peers.map(({ address }) => address),
    ['fd00:faa5:0:100::a', 'fd00:faa5:0:200::a'],
  )
  state.handshakes.set(key, state.now / 1000)
  await network.reconcile()
  assert.deepEqual(
    state.peers.map(({ address }) => address),
    ['fd00:faa5:0:100::a'],
  )
  await assert.rejects(network.redeem(address, key), refuses('INVITATION_INVALID'))
})

test('the one-time key is closed by itself once the new key has shaken hands', async (context) => {
  const { network, state, invitations } = await newNetwork(context)
  const { address } = decodeCode((await network.invite(named('laptop'))).code)
  const key = newKey()
  await network.redeem(address, key)
  state.handshakes.set(key, state.now / 1000)
  await eventually('the invitation is closed', () => assert.equal(invitations.list().length, 0))
  await eventually('WireGuard knows', () => assert.equal(state.peers.length, 1))
})

test('a redeemed invitation survives a restart, and its key may still ask again', async (context) => {
  const first = await newNetwork(context)
  const { address } = decodeCode((await first.network.invite(named('laptop'))).code)
  const key = newKey()
  const answer = await first.network.redeem(address, key)
  await first.network[Symbol.asyncDispose]()
  const { network, state } = await newNetwork(context, { root: first.root })
  await network.reconcile()
  assert.equal(state.peers.length, 2)
  assert.deepEqual(await network.redeem(address, key), answer)
  await assert.rejects(network.redeem(address, newKey()), refuses('INVITATION_INVALID'))
})

test('a crash between the peer and the note of it does not let a second key in', async (context) => {
  const { network, store } = await newNetwork(context)
  const { address } = decodeCode((await network.invite(named('laptop'))).code)
  const key = newKey()
  await store.add(named('laptop'), key)
  await assert.rejects(network.redeem(address, newKey()), refuses('PEER_EXISTS'))
  assert.equal((await network.redeem(address, key)).ipv6, 'fd00:faa5:0:100::a')
})

test('an expired invitation is refused at once and gone after the next look', async (context) => {
  const { network, state } = await newNetwork(context)
  const { address } = decodeCode((await network.invite(named('laptop'))).code)
  state.now += 3_600_000
  await assert.rejects(network.redeem(address, newKey()), refuses('INVITATION_INVALID'))
  await network.reconcile()
  assert.deepEqual(state.peers, [])
})

test('inviting again withdraws the earlier code; a peer that is there is not invited', async (context) => {
  const { network, state } = await newNetwork(context)
  const old = decodeCode((await network.invite(named('laptop'))).code)
  const fresh = decodeCode((await network.invite(named('laptop'))).code)
  assert.deepEqual(
    state.peers.map(({ publicKey }) => publicKey),
    [publicKeyOf(fresh.oneTimePrivateKey)],
  )
  assert.notEqual(old.address, fresh.address)
  await network.create(named('phone'), newKey())
  await assert.rejects(network.invite(named('phone')), refuses('PEER_EXISTS'))
})

test('remove() takes a peer, or only its invitation, or says that there is neither', async (context) => {
  const { network, state } = await newNetwork(context)
  await network.create(named('phone'), newKey())
  await network.invite(named('laptop'))
  await network.remove(named('laptop'))
  await network.remove(named('phone'))
  assert.deepEqual(state.peers, [])
  await assert.rejects(network.remove(named('phone')), refuses('PEER_UNKNOWN'))
})

test('list() tells who is connected, who was, and who never came', async (context) => {
  const { network, state } = await newNetwork(context)
  for (const [name, secondsAgo] of [
    ['a', 20],
    ['b', 200],
    ['c', undefined],
  ] as const) {
    const key = newKey()
    await network.create(named(name), key)
    if (secondsAgo !== undefined) state.handshakes.set(key, state.now / 1000 - secondsAgo)
  }
  const statuses = (await network.list()).map(({ name, status }) => [name, status])
  assert.deepEqual(statuses, [
    ['a', 'connected'],
    ['b', 'idle'],
    ['c', 'never'],
  ])
})

test('a damaged invitations.json is kept aside and said aloud; peers are not touched', async (context) => {
  const first = await newNetwork(context)
  await first.network.create(named('laptop'), newKey())
  await writeFile(join(first.root, 'invitations.json'), '{"version":1,"invitations":[{}]}')
  const { network, state } = await newNetwork(context, { root: first.root })
  await network.reconcile()
  assert.equal(state.peers.length, 1)
  assert.match(state.reports.join(), /invitations\.json is damaged/)
  assert.ok((await stat(join(first.root, 'invitations.json.damaged'))).isFile())
})

test('a WireGuard made anew is told where the peers were last heard from, and speaks to them first', async (context) => {
  const { network, state, root } = await newNetwork(context)
  const key = newKey()
  const { ipv6 } = await network.create(named('laptop'), key)
  await network.create(named('never-came'), newKey())
  state.endpoints.set(key, '198.51.100.7:4711')
  state.handshakes.set(key, state.now / 1000)
  await network.reconcile()
  assert.deepEqual(state.nudged, [])
  Object.assign(state, { peers: [], handshakes: new Map(), endpoints: new Map() })
  await network.reconcile()
  assert.deepEqual(state.nudged, [ipv6])
  assert.equal(state.peers.find(({ publicKey }) => publicKey === key)?.endpoint, '198.51.100.7:4711')

  await network[Symbol.asyncDispose]()
  const next = await newNetwork(context, { root })
  await next.network.reconcile()
  assert.deepEqual(next.state.nudged, [ipv6])
  await next.network.remove(named('laptop'))
  await next.network.reconcile()
  assert.equal(await readFile(join(root, 'endpoints.json'), 'utf8'), '{}\n')
})

test('endpoints.json may be damaged or forged without harm', async (context) => {
  const { root } = await newNetwork(context)
  const path = join(root, 'endpoints.json')
  for (const text of ['', '[]', '{"K=":"x; id"}', '{"K=":"host.example:1"}', '{"K=":"203.0.113.1:1\\n"}']) {
    await writeFile(path, text)
    assert.equal((await loadEndpointMemory(path)).get('K='), undefined, text)
  }
  await writeFile(path, '{"K=":"[2001:db8::1]:1"}')
  assert.equal((await loadEndpointMemory(path)).get('K='), '[2001:db8::1]:1')
})
