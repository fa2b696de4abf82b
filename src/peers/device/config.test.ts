import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { parseIpv6 } from '../../values/ipv6.ts'
import { parsePeerName } from '../../values/names.ts'
import { generateKeyPair } from '../keys.ts'
import { createDeviceFiles, type Membership } from './config.ts'

const name = parsePeerName('laptop')
const membership: Membership = {
  version: 1,
  name,
  private_key: generateKeyPair().privateKey,
  address: parseIpv6('fd00:faa5:0:100::a'),
  server_public_key: generateKeyPair().publicKey,
  endpoint: '203.0.113.1:51820',
  created: '2026-03-01T10:00:00.000Z',
}

async function newFiles(context: TestContext) {
  const root = await mkdtemp(join(tmpdir(), 'faasd-device-'))
  context.after(() => rm(root, { recursive: true, force: true }))
  return { files: createDeviceFiles(join(root, 'faas')), directory: join(root, 'faas', 'vpn'), root }
}

test('a membership is read back as it was written, 0600 in a 0700 directory', async (context) => {
  const { files, directory } = await newFiles(context)
  assert.deepEqual(await files.names(), [])
  assert.equal(await files.read(name), undefined)
  await files.write(membership)
  assert.deepEqual(await files.read(name), membership)
  assert.deepEqual(await files.names(), [name])
  assert.equal((await stat(join(directory, 'laptop.json'))).mode & 0o777, 0o600)
  assert.equal((await stat(directory)).mode & 0o777, 0o700)
})

test('joiningKey() answers the same key until joining is done', async (context) => {
  const { files } = await newFiles(context)
  const first = await files.joiningKey(name, generateKeyPair)
  assert.deepEqual(await files.joiningKey(name, generateKeyPair), first)
  assert.deepEqual(await files.names(), [])
  await files.doneJoining(name)
  assert.notDeepEqual(await files.joiningKey(name, generateKeyPair), first)
})

test('a damaged membership is VPN_CONFIG_INVALID, without its content in the message', async (context) => {
  const { files, directory } = await newFiles(context)
  await files.write(membership)
  const path = join(directory, 'laptop.json')
  const good = await readFile(path, 'utf8')
  for (const text of ['', 'null', good.slice(0, 100), good.replace('"fd00', '"fd99:zz')]) {
    await writeFile(path, text)
    await assert.rejects(
      files.read(name),
      (error: Error & { code?: string }) =>
        error.code === 'VPN_CONFIG_INVALID' && !error.message.includes(membership.private_key),
    )
  }
})

test('remove() takes everything that is kept of a name', async (context) => {
  const { files, directory } = await newFiles(context)
  await files.write(membership)
  await files.joiningKey(name, generateKeyPair)
  await files.remove(name)
  assert.deepEqual(await readdir(directory), [])
})
