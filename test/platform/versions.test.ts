/** Versions, rollback, health checks and deploys at the same time, through the real API. Needs root. */
import assert from 'node:assert/strict'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Deployed } from '../../src/api/answers.ts'
import type { Client } from '../../src/api/client.ts'
import { eventually } from '../../src/host/eventually.ts'
import { FaasError } from '../../src/values/errors.ts'
import { createLab, type Lab } from '../machines/lab.ts'
import { type Platform, startPlatform } from '../machines/platform.ts'
import { startLoad } from './load.ts'
import { clientOf, deploy, getText, serverArchive, urlOf } from './platform-api.ts'

let lab: Lab
let platform: Platform
let client: Client
let archive: string

before(async () => {
  lab = await createLab({ devices: 0 })
  platform = await startPlatform(lab.server)
  client = clientOf(lab.server)
  archive = await serverArchive('one', 'two', 'three', 'four', 'five', 'six', 'seven')
})
after(async () => {
  await platform?.[Symbol.asyncDispose]()
  await lab?.[Symbol.asyncDispose]()
})

/** A busy machine may take its time to start an instance; what must not work states a shorter time. */
const patience = { 'connect-timeout': '30s' }
const isOf = (contract: string) => ({ ...patience, contract, env: contract === 'fd' ? ['CONTRACT=fd'] : [] })
const answerOf = ({ ip }: Deployed): Promise<string> => getText(lab.server, urlOf(ip))
const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'done',
    (error: unknown) => (error instanceof FaasError ? error.code : String(error)),
  )

for (const contract of ['listen', 'fd']) {
  test(`a rollback under load fails no request, and brings back image and options (${contract})`, async () => {
    const name = `load-${contract}`
    const health = '/healthz'
    const first = await deploy(client, name, archive, { ...isOf(contract), image: 'server:one', health })
    const second = await deploy(client, name, archive, { ...isOf(contract), image: 'server:two' })
    assert.deepEqual([first.version, second.version, second.ip], [1, 2, first.ip])
    assert.equal(await answerOf(second), 'two')
    await using load = startLoad(lab.server, urlOf(first.ip))
    await delay(300)
    const back = await client.call('rollback', { name, body: {} })
    assert.equal(back.version, 3)
    assert.equal(await answerOf(first), 'one')
    await delay(300)
    const again = await client.call('rollback', { name, body: { version: '2' } })
    assert.equal(again.version, 4)
    assert.equal(await answerOf(first), 'two')
    await delay(300)
    const { failed, failures, bodies } = await load.stop()
    assert.equal(failed, 0, failures.join('; '))
    assert.deepEqual(Object.keys(bodies).sort(), ['one', 'two'])
    const versions = await client.call('versions', { name })
    assert.deepEqual(
      versions.map(({ version, current, rollback_of, health: path }) => [
        version,
        current,
        rollback_of,
        path,
      ]),
      [
        [4, true, 2, null],
        [3, false, 1, '/healthz'],
        [2, false, null, null],
        [1, false, null, '/healthz'],
      ],
    )
  })
}

test('a redeploy of the same image with other options takes effect at once, and its rollback as well', async () => {
  const name = 'options'
  const deployWith = (answer: string) =>
    deploy(client, name, archive, { ...isOf('listen'), env: [`ANSWER=${answer}`], image: 'server:one' })
  const first = await deployWith('a')
  assert.equal(await answerOf(first), 'a')
  await deployWith('b')
  assert.equal(await answerOf(first), 'b')
  await client.call('rollback', { name, body: {} })
  assert.equal(await answerOf(first), 'a')
})

test('five versions and their images are kept; what is older goes, and cannot be rolled back to', async () => {
  const name = 'kept'
  const images: string[] = []
  for (const mark of ['one', 'two', 'three', 'four', 'five', 'six']) {
    await deploy(client, name, archive, { ...isOf('fd'), image: `server:${mark}` })
    const [current] = await client.call('versions', { name })
    images.push(current?.image ?? '')
  }
  const versions = await client.call('versions', { name })
  assert.deepEqual(
    versions.map(({ version }) => version),
    [6, 5, 4, 3, 2],
  )
  assert.equal(await codeOf(client.call('rollback', { name, body: { version: '1' } })), 'VERSION_UNKNOWN')
  const prefix = images[1]?.slice(0, 'sha256:'.length + 12) ?? ''
  const back = await client.call('rollback', { name, body: { version: prefix } })
  assert.equal(back.version, 7)
  assert.equal(await answerOf(back), 'two')
  // Nobody else has the image of the first version once these two are gone.
  for (const other of ['load-listen', 'load-fd', 'options'])
    await client.call('remove', { name: other }).catch(() => {})
  await eventually('only images of kept versions are on the disk', async () => {
    const kept = await client.call('versions', { name })
    const files = await readdir(join(lab.server.directory, 'faasd', 'store', 'images'))
    assert.deepEqual(files.sort(), [...new Set(kept.map(({ image }) => `${image.slice(7)}.json`))].sort())
  })
})

test('faas versions and faas rollback say what there is and what was done', async () => {
  await deploy(client, 'words', archive, { ...isOf('fd'), image: 'server:one' })
  const none = await lab.server.exec(['faas', 'rollback', 'words'], { okCodes: [3] })
  assert.match(none.stderr, /no version before the current one \(VERSION_UNKNOWN\)/)
  await deploy(client, 'words', archive, { ...isOf('fd'), image: 'server:two' })
  assert.match(await lab.server.sh('faas rollback words'), /^version +3$/m)
  assert.match(
    await lab.server.sh('faas versions words'),
    /^3 +[0-9a-f]{12} +fd .*current, rollback to 1 +python3/m,
  )
})

test('a rollback to a version that cannot be started any more changes nothing', async () => {
  const name = 'broken'
  await deploy(client, name, archive, { ...isOf('fd'), image: 'server:seven' })
  const second = await deploy(client, name, archive, { ...isOf('listen'), image: 'server:two' })
  const [, first] = await client.call('versions', { name })
  await rm(join(lab.server.directory, 'faasd', 'store', 'images', `${first?.image.slice(7)}.json`))
  assert.equal(await codeOf(client.call('rollback', { name, body: {} })), 'NOT_FOUND')
  assert.equal(await answerOf(second), 'two')
  const versions = await client.call('versions', { name })
  assert.deepEqual(
    versions.map(({ version }) => version),
    [2, 1],
  )
})

for (const contract of ['listen', 'fd']) {
  test(`--health holds the old version until the new one answers with 2xx (${contract})`, async () => {
    const name = `health-${contract}`
    const options = { ...isOf(contract), health: '/healthz?a=1' }
    const first = await deploy(client, name, archive, { ...options, image: 'server:one' })
    const unhealthy = { ...options, env: [...options.env, 'HEALTH=500'], image: 'server:two' }
    const error = await deploy(client, name, archive, { ...unhealthy, 'connect-timeout': '4s' }).then(
      () => assert.fail('it should not be proven'),
      (thrown: FaasError) => thrown,
    )
    assert.equal(error.code, 'FUNCTION_NOT_PROVEN')
    assert.match(error.message, /answered 500.*asked for \/healthz\?a=1/)
    assert.equal(await answerOf(first), 'one')
    const detail = await client.call('describe', { name })
    assert.deepEqual([detail.version, detail.health], [1, '/healthz?a=1'])
  })
}

test('a server that warms up is asked until it is well, and found out to listen by itself', async () => {
  const deployed = await deploy(client, 'warm', archive, {
    ...patience,
    image: 'server:three',
    env: ['WARM_UP=3'],
    health: '/healthz',
  })
  assert.equal(deployed.contract, 'listen')
  assert.equal(await answerOf(deployed), 'three')
})

test('a version that listens and answers nothing is not proven', async () => {
  const error = await deploy(client, 'mute', archive, {
    ...isOf('listen'),
    env: ['MUTE=1'],
    image: 'server:one',
    health: '/healthz',
    'connect-timeout': '4s',
  }).catch((thrown: FaasError) => thrown)
  assert.ok(error instanceof FaasError)
  assert.match(error.message, /when asked for \/healthz it did not answer/)
  assert.equal(await codeOf(client.call('describe', { name: 'mute' })), 'FUNCTION_UNKNOWN')
})

test('F32, B71: of 20 deploys of one name at once one goes on and the others are refused before their body', async () => {
  const one = (value: number) =>
    deploy(client, 'race', archive, {
      ...isOf('fd'),
      env: ['CONTRACT=fd', `ANSWER=${value}`],
      image: 'server:one',
    })
  const numbers = Array.from({ length: 20 }, (_, index) => index)
  const outcomes = await Promise.all(numbers.map((value) => codeOf(one(value))))
  assert.ok(outcomes.includes('done'))
  assert.deepEqual([...new Set(outcomes)].sort(), ['FUNCTION_BUSY', 'done'].sort())
  // Each comes back until it has had its turn: none is torn, and the last one that was acknowledged is there.
  const acknowledged: { version: number; value: number; deployed: Deployed }[] = []
  await Promise.all(
    numbers.slice(0, 6).map((value) =>
      eventually(
        `deploy ${value} has its turn`,
        async () => {
          const deployed = await one(value)
          acknowledged.push({ version: deployed.version, value, deployed })
        },
        { timeoutMs: 60_000 },
      ),
    ),
  )
  acknowledged.sort((a, b) => a.version - b.version)
  assert.equal(new Set(acknowledged.map(({ version }) => version)).size, acknowledged.length)
  const last = acknowledged.at(-1)
  assert.ok(last)
  assert.equal(await answerOf(last.deployed), String(last.value))
  const [current] = await client.call('versions', { name: 'race' })
  assert.equal(current?.version, last.version)
})
