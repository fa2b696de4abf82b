import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Image } from '../images/image.ts'
import { digestOfHex } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import { parseIpv6 } from '../values/ipv6.ts'
import { parseFunctionName } from '../values/names.ts'
import {
  defaultTimeouts,
  type FunctionOptions,
  type FunctionRecord,
  type FunctionVersion,
  versionsOf,
} from './function.ts'
import type { Registry, RegistryContent } from './registry.ts'
import { createNameLocks, createRelease, type FunctionsDeps } from './release.ts'
import { createRollback, findVersion, parseVersionReference } from './rollback.ts'

const app = parseFunctionName('app')
const [a, b] = [digestOfHex(`abcdef${'1'.repeat(58)}`), digestOfHex(`abcdef${'2'.repeat(58)}`)]
const options: FunctionOptions = {
  limits: { memoryBytes: 1, cpuMillis: 1, pids: 1, tmpBytes: 1 },
  timeouts: defaultTimeouts,
  maxInstances: 1,
  minInstances: 0,
  writable: false,
  env: [],
}
const version = (number: number, image = a): FunctionVersion => ({
  version: number,
  image,
  contract: 'listen',
  ports: [{ port: 80, target: 8080 }],
  options: { ...options, env: [`V=${number}`] },
  deployed: '2026-01-01T00:00:00.000Z',
})
const record = (current: FunctionVersion, ...previous: FunctionVersion[]): FunctionRecord => ({
  ...current,
  address: parseIpv6('fd00:faa5:1::a'),
  created: '2026-01-01T00:00:00.000Z',
  previous,
})
const three = record(version(7, b), version(4, a), version(6, a))

for (const [text, reference] of [
  ['7', { version: 7 }],
  ['123456', { version: 123456 }],
  ['abcdef', { imagePrefix: 'abcdef' }],
  ['sha256:123456', { imagePrefix: '123456' }],
  ['1234567890', { imagePrefix: '1234567890' }],
] as const) {
  test(`parseVersionReference() reads ${text}`, () => {
    assert.deepEqual(parseVersionReference(text), reference)
  })
}

test('parseVersionReference() refuses what is neither a number nor the beginning of a digest', () => {
  for (const text of [
    '',
    '0',
    '-1',
    'abcde',
    'ABCDEF',
    'v1',
    'sha256:',
    'sha256:12345',
    '../1',
    'a'.repeat(65),
  ])
    assert.throws(() => parseVersionReference(text), { code: 'OPTION_INVALID' }, text)
})

test('findVersion() finds the one before the current, a number, and the newest with an image', () => {
  assert.equal(findVersion(app, three, undefined).version, 6)
  assert.equal(findVersion(app, three, { version: 4 }).version, 4)
  assert.equal(findVersion(app, three, { imagePrefix: 'abcdef1' }).version, 6)
  assert.equal(findVersion(app, three, { imagePrefix: 'abcdef2' }).version, 7)
})

test('findVersion() names what is kept when there is no such version, and wants one image', () => {
  assert.throws(() => findVersion(app, three, { version: 5 }), { code: 'VERSION_UNKNOWN', hint: /7, 6, 4/ })
  assert.throws(() => findVersion(app, three, { imagePrefix: '123456' }), { code: 'VERSION_UNKNOWN' })
  assert.throws(() => findVersion(app, three, { imagePrefix: 'abcdef' }), { code: 'OPTION_INVALID' })
  assert.throws(() => findVersion(app, record(version(1)), undefined), { code: 'VERSION_UNKNOWN' })
})

/** A release with nothing behind it but a registry in memory. */
function world(content: RegistryContent, prove: () => Promise<'fd' | 'listen'> = async () => 'listen') {
  const did: string[] = []
  const registry: Registry = {
    get content() {
      return content
    },
    async commit(change) {
      did.push('commit')
      content = change(content)
    },
  }
  const config = { entrypoint: [], cmd: ['/app'], env: [], user: '', workingDir: '', stopSignal: 'SIGTERM' }
  const image = (id: typeof a) => ({ id, layers: [], config })
  const images = {
    load: async (id: typeof a) => image(id) as unknown as Image,
    mountRootfs: async () => '/rootfs',
    mountPoints: async () => ({ points: [], directories: [], etc: undefined }),
    resolveUser: async () => ({ uid: 0, gid: 0, additionalGids: [] }),
  }
  const reconciler = {
    reconcile: async () => [],
    hold: () => ({ [Symbol.dispose]: () => void did.push('unhold') }),
    retireOldVersions: (_name: string, held: Disposable) => held[Symbol.dispose](),
  }
  const deps = {
    registry,
    images,
    reconciler,
    serving: {
      inPlace: async () => {},
      prove: () => {
        did.push('prove')
        return prove()
      },
    },
    names: { waitForAddress: async () => {} },
    clock: { now: () => new Date('2026-01-02T00:00:00Z') },
    reach: () => {},
  } as unknown as FunctionsDeps
  const release = createRelease(deps)
  const rollback = createRollback({ ...deps, locks: createNameLocks(), release })
  return { registry, did, release, rollback, image: (id: typeof a) => image(id) as unknown as Image }
}
const contentOf = (one: FunctionRecord): RegistryContent => ({
  functions: new Map([[app, one]]),
  resting: [],
})
const progress = { signal: new AbortController().signal, onProgress: () => {} }

test('a rollback proves, then commits the old content under the next number', async () => {
  const { rollback, registry, did } = world(contentOf(three))
  const answer = await rollback(app, { version: 4 }, progress)
  assert.equal(answer.version, 8)
  assert.deepEqual(did, ['prove', 'commit', 'unhold'])
  const now = registry.content.functions.get(app)
  assert.ok(now)
  assert.deepEqual(
    versionsOf(now).map(({ version: number }) => number),
    [8, 7, 6, 4],
  )
  const { version: _number, deployed, rollbackOf, ...rest } = versionsOf(now)[0] as FunctionVersion
  const { version: _old, deployed: _then, ...old } = version(4, a)
  assert.deepEqual(rest, old)
  assert.equal(rollbackOf, 4)
  assert.equal(deployed, '2026-01-02T00:00:00.000Z')
})

test('a rollback whose instance does not work changes nothing', async () => {
  const failing = async () => {
    throw new FaasError('FUNCTION_NOT_PROVEN', 'no')
  }
  const { rollback, registry, did } = world(contentOf(three), failing)
  await assert.rejects(rollback(app, undefined, progress), { code: 'FUNCTION_NOT_PROVEN' })
  assert.deepEqual(registry.content, contentOf(three))
  assert.deepEqual(did, ['prove', 'unhold'])
})

test('a rollback of a name that is busy is refused, and a cancelled one is not committed', async () => {
  const gate = Promise.withResolvers<'listen'>()
  const { rollback, registry } = world(contentOf(three), () => gate.promise)
  const cancel = new AbortController()
  const first = rollback(app, undefined, { ...progress, signal: cancel.signal })
  await assert.rejects(rollback(app, undefined, progress), { code: 'FUNCTION_BUSY' })
  cancel.abort()
  gate.resolve('listen')
  await assert.rejects(first)
  assert.deepEqual(registry.content, contentOf(three))
})

test('five versions are kept, and the numbers go on', async () => {
  const { release, registry, image } = world({ functions: new Map(), resting: [] })
  for (let count = 0; count < 8; count++)
    await release(app, image(a), { ports: [{ port: 80, target: 8080 }], options }, progress)
  const now = registry.content.functions.get(app)
  assert.ok(now)
  assert.deepEqual(
    versionsOf(now).map(({ version: number }) => number),
    [8, 7, 6, 5, 4],
  )
})
