import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { createLog } from '../telemetry/log.ts'
import { digestOfHex } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import { parseIpv6 } from '../values/ipv6.ts'
import { parseFunctionName } from '../values/names.ts'
import { defaultTimeouts, type FunctionRecord } from './function.ts'
import { openRegistry, parseRegistry, renderRegistry } from './registry.ts'

const record = (last: string): FunctionRecord => ({
  address: parseIpv6(`fd00:faa5:1::${last}`),
  ports: [{ port: 80, target: 8080 }],
  contract: 'fd',
  image: digestOfHex('ab'.repeat(32)),
  created: '2026-01-01T00:00:00.000Z',
  version: 3,
  deployed: '2026-01-02T00:00:00.000Z',
  previous: [],
  options: {
    limits: { memoryBytes: 1, cpuMillis: 2, pids: 3, tmpBytes: 4 },
    timeouts: defaultTimeouts,
    maxInstances: 5,
    minInstances: 0,
    writable: false,
    env: ['A=b'],
  },
})

async function withRoot(body: (root: string, said: string[]) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'faas-registry-'))
  try {
    await body(root, [])
  } finally {
    await rm(root, { recursive: true })
  }
}
const logTo = (said: string[]) => createLog({ write: (line) => said.push(line) })
const name = parseFunctionName('constructor')

test('renderRegistry() and parseRegistry() are each other’s inverse, prototype words included', () => {
  const content = {
    functions: new Map([
      [name, record('a')],
      [parseFunctionName('b'), record('b')],
    ]),
    resting: [{ address: parseIpv6('fd00:faa5:1::c'), freedAtMs: 5 }],
  }
  assert.deepEqual(parseRegistry(renderRegistry(content)), content)
})

test('parseRegistry() refuses a newer format, a doubled name and a doubled address', () => {
  assert.throws(() => parseRegistry('{"version":2}'), { code: 'STATE_TOO_NEW' })
  const twice = {
    version: 1,
    functions: [
      ['a', record('a')],
      ['a', record('b')],
    ],
    resting: [],
  }
  assert.throws(() => parseRegistry(JSON.stringify(twice)), { code: 'REGISTRY_CORRUPT' })
  const shared = {
    version: 1,
    functions: [
      ['a', record('a')],
      ['b', record('a')],
    ],
    resting: [],
  }
  assert.throws(() => parseRegistry(JSON.stringify(shared)), { code: 'REGISTRY_CORRUPT' })
})

test('the registry keeps earlier versions, and refuses numbers that do not rise and keys it does not know', () => {
  const { address: _address, created: _created, previous: _previous, ...version } = record('a')
  const options = { ...version.options, health: '/healthz?full=1' }
  const kept = (...numbers: number[]) => ({
    ...record('a'),
    previous: numbers.map((number) => ({ ...version, version: number, options, rollbackOf: 1 })),
  })
  const content = { functions: new Map([[name, kept(1, 2)]]), resting: [] }
  assert.deepEqual(parseRegistry(renderRegistry(content)), content)
  const refused = (changed: object) => {
    const file = JSON.stringify({ version: 1, functions: [['a', changed]], resting: [] })
    assert.throws(() => parseRegistry(file), { code: 'REGISTRY_CORRUPT' })
  }
  refused(kept(2, 2))
  refused(kept(2, 1))
  refused(kept(3))
  refused({ ...kept(1), more: 1 })
  refused({ ...kept(1), options: { ...options, more: 1 } })
  refused({ ...kept(1), options: { ...options, health: 'healthz' } })
  refused({ ...kept(1), options: { ...options, env: ['no value'] } })
  refused({ ...kept(1), version: undefined })
})

test('parseRegistry() answers or throws a FaasError, whatever it reads', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      try {
        parseRegistry(text)
        return true
      } catch (error) {
        return error instanceof FaasError
      }
    }),
  )
})

test('openRegistry() begins empty, commits durably and reads what it committed', () =>
  withRoot(async (root, said) => {
    const registry = await openRegistry({ root, log: logTo(said) })
    assert.equal(registry.content.functions.size, 0)
    await registry.commit(({ resting }) => ({ functions: new Map([[name, record('a')]]), resting }))
    const again = await openRegistry({ root, log: logTo(said) })
    assert.deepEqual(again.content, registry.content)
    assert.deepEqual(said, [])
  }))

test('a change that throws leaves the registry as it was, and later ones go on', () =>
  withRoot(async (root, said) => {
    const registry = await openRegistry({ root, log: logTo(said) })
    const failing = registry.commit(() => {
      throw new Error('no')
    })
    await assert.rejects(failing, /no/)
    await registry.commit(({ resting }) => ({ functions: new Map([[name, record('a')]]), resting }))
    assert.equal(registry.content.functions.size, 1)
  }))

for (const [what, damage] of [
  ['empty', ''],
  ['truncated', '{"version":1,"functions":[["a"'],
  ['garbage', '\u0000\u0001garbage'],
] as const) {
  test(`F26: a registry.json that is ${what} is kept aside and the last good one is used, said aloud`, () =>
    withRoot(async (root, said) => {
      const registry = await openRegistry({ root, log: logTo(said) })
      await registry.commit(({ resting }) => ({ functions: new Map([[name, record('a')]]), resting }))
      await writeFile(join(root, 'registry.json'), damage)
      const healed = await openRegistry({ root, log: logTo(said) })
      assert.deepEqual([...healed.content.functions.keys()], [name])
      const aside = (await readdir(root)).filter((file) => file.startsWith('registry.json.bad-'))
      assert.equal(aside.length, 1)
      assert.equal(await readFile(join(root, aside[0] ?? ''), 'utf8'), damage)
      assert.match(
        said.join(''),
        /kept as .*registry\.json\.bad-.*\n.*last good registry is used: 1 functions/,
      )
    }))
}

test('F26: a damaged registry without a last good copy is an error, never an empty start', () =>
  withRoot(async (root, said) => {
    await writeFile(join(root, 'registry.json'), 'garbage')
    for (const _start of ['first', 'second']) {
      await assert.rejects(openRegistry({ root, log: logTo(said) }), { code: 'REGISTRY_CORRUPT' })
    }
    assert.equal(await readFile(join(root, 'registry.json'), 'utf8'), 'garbage')
  }))

test('F26: a newer registry is refused and left alone', () =>
  withRoot(async (root, said) => {
    await writeFile(join(root, 'registry.json'), '{"version":99}')
    await assert.rejects(openRegistry({ root, log: logTo(said) }), { code: 'STATE_TOO_NEW' })
    assert.deepEqual(await readdir(root), ['registry.json'])
  }))
