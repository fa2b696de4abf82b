/**
 * Servers of the `listen` contract that abuse the listener they are given, on the whole platform: whatever they do to it
 * hurts their own function only, heals, and neither stops the daemon nor outlives the function.
 */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { parseFunctionName } from '../../src/values/names.ts'
import { buildPythonImage } from '../images/build.ts'
import { createLab, type Lab } from '../machines/lab.ts'
import { type Platform, startPlatform } from '../machines/platform.ts'
import { clientOf, deploy, getText, urlOf } from './platform-api.ts'

let lab: Lab
let platform: Platform
let archive: string
let bystander: string

/** Busy machines take their time. */
const patience = { timeoutMs: 60_000, intervalMs: 200 }
const deployServer = async (name: string, mode: string, answer = name): Promise<string> => {
  const env = [`MODE=${mode}`, `ANSWER=${answer}`]
  const options = { contract: 'listen', env, 'connect-timeout': '30s' }
  return (await deploy(clientOf(lab.server), name, archive, options)).ip
}
const get = (ip: string, path = ''): Promise<string> => getText(lab.server, `${urlOf(ip)}${path}`)
/** The daemon answers, and so does a function that has done nothing. */
const assertOthersUnharmed = async (): Promise<void> => {
  assert.ok((await clientOf(lab.server).call('list', {}))['bystander'])
  assert.equal(await get(bystander), 'bystander')
}

before(async () => {
  lab = await createLab({ devices: 0 })
  platform = await startPlatform(lab.server)
  const handler = await readFile(join(import.meta.dirname, 'handlers', 'hostile_server.py'), 'utf8')
  archive = await buildPythonImage({ name: 'server', handler })
  bystander = await deployServer('bystander', '')
})
after(async () => {
  await platform?.[Symbol.asyncDispose]()
  await lab?.[Symbol.asyncDispose]()
})

for (const mode of ['exits', 'shuts-down']) {
  test(`a server that ${mode} between bind and listen fails its callers at once, and nobody else`, async () => {
    const ip = await deployServer(mode, mode)
    await assert.rejects(get(ip))
    await assertOthersUnharmed()
    await assert.rejects(get(ip))
    await assertOthersUnharmed()
    await clientOf(lab.server).call('remove', { name: mode })
  })
}

test('a server that shuts its listener down while it serves is replaced and answers again', async () => {
  const ip = await deployServer('deaf', '')
  assert.equal(await get(ip), 'deaf')
  assert.equal(await get(ip, 'deaf'), 'deaf')
  await eventually('the function answers again', async () => assert.equal(await get(ip), 'deaf'), patience)
  await assertOthersUnharmed()
})

test('a server cannot keep its address through a redeploy or a removal', async () => {
  const ip = await deployServer('keeper', 'keeps-address', 'one')
  assert.equal(await get(ip), 'one')
  await deployServer('keeper', '', 'two')
  assert.equal(await get(ip), 'two')
  await clientOf(lab.server).call('remove', { name: parseFunctionName('keeper') })
  await assert.rejects(get(ip))
  const isGone = async (): Promise<void> => {
    assert.doesNotMatch(await lab.server.sh('runc list'), /faas-keeper-/)
  }
  await eventually('no instance is left', isGone, patience)
})

test('an old version that binds for ever is never given what is not its function’s', async () => {
  const ip = await deployServer('binder', 'binds', 'one')
  assert.equal(await get(ip), 'one')
  // One connection stays open, so that the old version lives on beside the new one.
  await using holder = lab.server.spawn(['bash', '-c', `exec 3<>/dev/tcp/${ip}/80; sleep 20`])
  await deployServer('binder', '', 'two')
  await deployServer('neighbour', '')
  await assertOthersUnharmed()
  const held = (await platform.log()).split('\n').filter((line) => line.includes('HELD'))
  assert.ok(held.length > 0)
  for (const line of held) assert.match(line, new RegExp(`HELD (socket at (${ip}|::)|\\[Errno \\d+\\] .*)$`))
  holder.kill()
})

test('a server may bind a UNIX socket with a long name after its port, as its own', async () => {
  const ip = await deployServer('unix', 'unix')
  assert.equal(await get(ip), 'unix')
  const said = async (): Promise<void> => {
    assert.match(await platform.log(), /faas-unix-\w+\] Container stdout: UNIX 0 0o755\n/)
  }
  await eventually('the server says whose the socket is', said, patience)
})
