import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { peerPool } from '../net/addresses.ts'
import { parseIpv6 } from '../values/ipv6.ts'
import { type PeerName, parsePeerName } from '../values/names.ts'
import { generateKeyPair } from './keys.ts'
import { renderPeerFile } from './peer-file.ts'
import { createPeerStore, type DamagedPeerFile, type PeerStoreDeps } from './store.ts'

const server = generateKeyPair()
const named = (text: string): PeerName => parsePeerName(text)
const newKey = (): string => generateKeyPair().publicKey

async function newStore(context: TestContext, deps: Partial<PeerStoreDeps> = {}) {
  const directory = deps.directory ?? join(await mkdtemp(join(tmpdir(), 'faasd-peers-')), 'peers')
  context.after(() => rm(join(directory, '..'), { recursive: true, force: true }))
  const reports: DamagedPeerFile[] = []
  const store = await createPeerStore({
    directory,
    serverPublicKey: server.publicKey,
    now: () => new Date('2026-03-01T10:00:00Z'),
    report: (damage) => reports.push(damage),
    ...deps,
  })
  return { store, directory, reports }
}

test('PeerStore.add() writes a 0600 file that another store reads back', async (context) => {
  const { store, directory } = await newStore(context)
  const publicKey = newKey()
  const peer = await store.add(named('laptop'), publicKey)
  assert.equal(peer.address, 'fd00:faa5:0:100::a')
  const path = join(directory, 'laptop.conf')
  assert.equal(await readFile(path, 'utf8'), renderPeerFile(peer))
  assert.equal((await stat(path)).mode & 0o777, 0o600)
  assert.deepEqual(await readdir(directory), ['laptop.conf'])
  const again = await newStore(context, { directory })
  assert.deepEqual(again.store.list(), [peer])
})

test('PeerStore.add() gives the lowest free address, and the same peer again for the same name and key', async (context) => {
  const { store } = await newStore(context)
  const key = newKey()
  const one = await store.add(named('one'), key)
  assert.equal((await store.add(named('two'), newKey())).address, 'fd00:faa5:0:100::b')
  assert.deepEqual(await store.add(named('one'), key), one)
  await store.remove(named('one'))
  assert.equal((await store.add(named('three'), newKey())).address, 'fd00:faa5:0:100::a')
})

test('PeerStore.add() called twenty times at once gives twenty addresses', async (context) => {
  const { store } = await newStore(context)
  const added = await Promise.all(
    Array.from({ length: 20 }, (_, index) => store.add(named(`n${index}`), newKey())),
  )
  assert.equal(new Set(added.map((peer) => peer.address)).size, 20)
})

test('B72: names that are paths or configuration write nothing', async (context) => {
  const { store, directory } = await newStore(context)
  for (const text of [
    '../../cron.d/x',
    'x\n[Interface]\nPostUp=touch /tmp/owned',
    '..',
    '.',
    '',
    'a/b',
    'a\0b',
    'A',
  ]) {
    assert.throws(() => named(text), { code: 'NAME_INVALID' }, JSON.stringify(text))
  }
  await assert.rejects(store.add(named('x'), `${newKey()}\n[Interface]\nPostUp = id`), {
    code: 'PEER_KEY_INVALID',
  })
  assert.deepEqual(await readdir(directory), [])
})

test("B73: a bad key, the server's own and another peer's are refused and write nothing", async (context) => {
  const { store, directory } = await newStore(context)
  const key = newKey()
  await store.add(named('one'), key)
  const cases: [string, string, string][] = [
    ['two', Buffer.alloc(32).toString('base64'), 'PEER_KEY_INVALID'],
    ['two', 'short', 'PEER_KEY_INVALID'],
    ['two', server.publicKey, 'PEER_KEY_TAKEN'],
    ['two', key, 'PEER_KEY_TAKEN'],
    ['one', newKey(), 'PEER_EXISTS'],
  ]
  for (const [name, publicKey, code] of cases)
    await assert.rejects(store.add(named(name), publicKey), { code })
  assert.deepEqual(await readdir(directory), ['one.conf'])
})

test('B74: removing an unknown peer is PEER_UNKNOWN', async (context) => {
  const { store } = await newStore(context)
  await assert.rejects(store.remove(named('nobody')), { code: 'PEER_UNKNOWN', status: 404 })
})

test('B75: a full address space is ADDRESS_POOL_EMPTY, and never wraps', async (context) => {
  const pool = { ...peerPool, last: parseIpv6('fd00:faa5:0:100::b') }
  const { store, directory } = await newStore(context, { pool })
  await store.add(named('one'), newKey())
  await store.add(named('two'), newKey())
  await assert.rejects(store.add(named('three'), newKey()), { code: 'ADDRESS_POOL_EMPTY', status: 507 })
  assert.deepEqual((await readdir(directory)).sort(), ['one.conf', 'two.conf'])
})

test('a damaged file is reported once, left as it is, and keeps its name and address', async (context) => {
  const first = await newStore(context)
  const { directory } = first
  const good = await first.store.add(named('good'), newKey())
  const text = `[Peer]\nPublicKey = nonsense\nAllowedIPs = fd00:faa5:0:100::b/128\n`
  await writeFile(join(directory, 'bad.conf'), text)
  await writeFile(
    join(directory, 'twin.conf'),
    renderPeerFile({ ...good, created: '2027-01-01T00:00:00.000Z' }),
  )
  await writeFile(
    join(directory, 'out.conf'),
    renderPeerFile({ ...good, publicKey: generateKeyPair().publicKey, address: parseIpv6('fd00:faa5:1::a') }),
  )
  await writeFile(join(directory, 'large.conf'), '#'.repeat(5000))
  await mkdir(join(directory, 'dir.conf'))
  await symlink('/dev/zero', join(directory, 'link.conf'))
  await writeFile(join(directory, 'Not A Name.conf'), renderPeerFile(good))
  await writeFile(join(directory, 'README'), 'not ours')
  await writeFile(join(directory, '.x.conf.0123.tmp'), 'half')
  const { store, reports } = await newStore(context, { directory })
  assert.deepEqual(store.list(), [good])
  const names = ['Not A Name', 'bad', 'dir', 'large', 'link', 'out', 'twin'].map((name) =>
    join(directory, `${name}.conf`),
  )
  assert.deepEqual(reports.map(({ path }) => path).sort(), names)
  await store.reload()
  assert.equal(reports.length, names.length)
  assert.equal(await readFile(join(directory, 'bad.conf'), 'utf8'), text)
  await assert.rejects(store.add(named('bad'), newKey()), { code: 'PEER_EXISTS' })
  assert.equal((await store.add(named('next'), newKey())).address, 'fd00:faa5:0:100::c')
  assert.ok(!(await readdir(directory)).includes('.x.conf.0123.tmp'))
  await store.remove(named('bad'))
  assert.ok(!(await readdir(directory)).includes('bad.conf'))
})
