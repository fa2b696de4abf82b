import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Demand, noDemand, noteArrival, type Sizing, sizeStandbys } from './standby-size.ts'

/** `count` arrivals, one every `everyMs`, the last of them at the answer's `atMs`. */
function steady(everyMs: number, count: number, before: Demand = noDemand): Demand {
  let demand = before
  for (let n = 1; n <= count; n++) demand = noteArrival(demand, before.atMs + n * everyMs)
  return demand
}

const size = (demand: Demand, more: Partial<Sizing> = {}): number =>
  sizeStandbys({
    standby: 'demand',
    maxInstances: 16,
    demand,
    nowMs: demand.atMs,
    startMs: 50,
    reuse: false,
    ...more,
  })

test('sizeStandbys() starts none for connections that come alone', () => {
  assert.equal(size(noDemand), 0)
  assert.equal(size(steady(1000, 1)), 0)
  assert.equal(size(steady(60_000, 100)), 0)
  assert.equal(size(steady(5_000, 100)), 0)
})

test('sizeStandbys() keeps one ahead of slow steady traffic', () => {
  assert.equal(size(steady(1000, 2)), 1)
  assert.equal(size(steady(1000, 100)), 1)
  assert.equal(size(steady(4000, 100)), 1)
})

test('sizeStandbys() keeps ahead what arrives during a start, and as much more as it scatters', () => {
  assert.equal(size(steady(50, 1000)), 3)
  assert.equal(size(steady(10, 1000)), 8)
  assert.equal(size(steady(10, 1000), { startMs: 12 }), 3)
  assert.equal(size(steady(10, 1000), { startMs: 200, maxInstances: 100 }), 25)
})

test('sizeStandbys() never exceeds the most that may run', () => {
  assert.equal(size(steady(1, 10_000)), 16)
  assert.equal(size(steady(1, 10_000), { maxInstances: 1 }), 1)
  assert.equal(size(noDemand, { standby: 100 }), 16)
})

test('sizeStandbys() goes down as traffic gets less, and to none when it ends', () => {
  const busy = steady(10, 1000)
  const sizes = [0, 1, 2, 4, 8, 16].map((s) => size(busy, { nowMs: busy.atMs + s * 1000 }))
  assert.deepEqual(
    sizes,
    [...sizes].sort((a, b) => b - a),
  )
  assert.equal(sizes.at(-1), 0)
  assert.equal(size(steady(1000, 20, busy)), 1)
})

test('sizeStandbys() does as the deploy says, whatever comes', () => {
  for (const demand of [noDemand, steady(10, 1000)]) {
    assert.equal(size(demand, { standby: 0 }), 0)
    assert.equal(size(demand, { standby: 3 }), 3)
    assert.equal(size(demand, { standby: 3, reuse: true }), 3)
  }
})

test('sizeStandbys() starts none in advance of instances that come back by themselves', () => {
  assert.equal(size(steady(10, 1000), { reuse: true }), 0)
})
