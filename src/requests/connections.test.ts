import assert from 'node:assert/strict'
import { openSync } from 'node:fs'
import { test } from 'node:test'
import { eventually } from '../host/eventually.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { parseFunctionName } from '../values/names.ts'
import { createConnections } from './connections.ts'

const anyDescriptor = (): number => openSync('/dev/null', 'r')

function create(count: number) {
  const connections = createConnections(parseFunctionName('one'), createMetrics())
  const added = Array.from({ length: count }, anyDescriptor)
  for (const fd of added) connections.add(fd)
  return { connections, added }
}

test('createConnections() gives the one that has waited longest, and counts what becomes of each', () => {
  const { connections, added } = create(3)
  assert.equal(connections.oldest(), added[0])
  connections.endOldest('passed')
  assert.equal(connections.oldest(), added[1])
  connections.endOldest('failed')
  connections.refuseAll()
  assert.equal(connections.oldest(), undefined)
  connections.endOldest('passed')
  assert.equal(connections.waiting, 0)
  assert.deepEqual(connections.counts, { accepted: 3, passed: 1, refused: 1, failed: 1 })
})

test('refuseOverdue() refuses those past their time, but for the first ones that are promised an instance', async () => {
  const { connections, added } = create(0)
  let overdue = 0
  for (let n = 0; n < 3; n++) {
    const fd = anyDescriptor()
    added.push(fd)
    connections.add(fd)
    connections.limitLast(1, () => overdue++)
  }
  connections.add(anyDescriptor())
  connections.limitLast(60_000, assert.fail)
  await eventually('all but the last are overdue', () => assert.equal(overdue, 3), { intervalMs: 5 })
  connections.refuseOverdue(2)
  assert.equal(connections.waiting, 3)
  assert.equal(connections.oldest(), added[0])
  connections.refuseOverdue(0)
  assert.equal(connections.waiting, 1)
  connections.refuseAll()
  assert.deepEqual(connections.counts, { accepted: 4, passed: 0, refused: 4, failed: 0 })
})
