import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOfHex } from '../values/digest.ts'
import { parseIpv6 } from '../values/ipv6.ts'
import { parseFunctionName } from '../values/names.ts'
import { defaultTimeouts, type FunctionRecord, versionIdOf } from './function.ts'
import { planReconcile, type Step } from './plan.ts'
import type { RegistryContent } from './registry.ts'

const [one, two] = [digestOfHex('11'.repeat(32)), digestOfHex('22'.repeat(32))]
const a = parseFunctionName('a')
const b = parseFunctionName('b')
const address = parseIpv6('fd00:faa5:1::a')
const other = parseIpv6('fd00:faa5:1::b')

const record = (image = one, at = address): FunctionRecord => ({
  address: at,
  ports: [{ port: 80, target: 8080 }],
  contract: 'fd',
  image,
  created: '2026-01-01T00:00:00.000Z',
  version: image === one ? 1 : 2,
  deployed: '2026-01-01T00:00:00.000Z',
  previous: [],
  options: {
    limits: { memoryBytes: 1, cpuMillis: 1, pids: 1, tmpBytes: 1 },
    timeouts: defaultTimeouts,
    maxInstances: 1,
    minInstances: 0,
    writable: false,
    env: [],
  },
})
const content = (...functions: [typeof a, FunctionRecord][]): RegistryContent => ({
  functions: new Map(functions),
  resting: [],
})
const servedAs = (image: typeof one) => ({
  address,
  ports: [{ port: 80, target: 8080 }],
  versionId: versionIdOf({ version: image === one ? 1 : 2, image }),
})
const kinds = (steps: readonly Step[]): string[] => steps.map(({ kind }) => kind)

test('planReconcile() of a first start puts the filter before addresses, listeners and names', () => {
  const steps = planReconcile(content([a, record()]), { served: new Map(), draining: [], filter: undefined })
  assert.deepEqual(steps, [
    { kind: 'replaceFilter', listeners: [{ address, port: 80 }] },
    { kind: 'setAddresses', addresses: [address] },
    { kind: 'serve', name: 'a' },
    { kind: 'writeZone', records: [['a', address]] },
  ])
})

test('planReconcile() of a redeploy only serves the new version', () => {
  const observed = { served: new Map([[a, servedAs(one)]]), draining: [], filter: [{ address, port: 80 }] }
  const steps = planReconcile(content([a, record(two)]), observed)
  assert.deepEqual(kinds(steps), ['setAddresses', 'serve', 'writeZone'])
})

test('planReconcile() of a removal keeps address and filter until the last request has ended', () => {
  const filter = [{ address, port: 80 }]
  const first = planReconcile(content(), { served: new Map([[a, servedAs(one)]]), draining: [], filter })
  assert.deepEqual(first, [
    { kind: 'setAddresses', addresses: [address] },
    { kind: 'writeZone', records: [] },
    { kind: 'stopServing', name: 'a' },
  ])
  const draining = planReconcile(content(), { served: new Map(), draining: filter, filter })
  assert.deepEqual(draining, [
    { kind: 'setAddresses', addresses: [address] },
    { kind: 'writeZone', records: [] },
  ])
  const after = planReconcile(content(), { served: new Map(), draining: [], filter })
  assert.deepEqual(kinds(after), ['setAddresses', 'writeZone', 'closeFilter'])
})

test('planReconcile() opens the filter for what is new and closes it for what is gone', () => {
  const observed = { served: new Map([[a, servedAs(one)]]), draining: [], filter: [{ address, port: 80 }] }
  const steps = planReconcile(content([a, record()], [b, record(two, other)]), observed)
  assert.deepEqual(steps[0], { kind: 'openFilter', listeners: [{ address: other, port: 80 }] })
  assert.deepEqual(kinds(steps), ['openFilter', 'setAddresses', 'serve', 'writeZone'])
})
