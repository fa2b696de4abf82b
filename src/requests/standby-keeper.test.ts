import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { ServedFunction } from '../functions/function.ts'
import { eventually } from '../host/eventually.ts'
import { createStandbyKeeper } from './standby-keeper.ts'

/** Instances that wait as soon as they are started. */
function create({
  standby,
  maxInstances = 8,
  idleMs = 60_000,
}: {
  standby?: number
  maxInstances?: number
  idleMs?: number
}) {
  const world = { waiting: 0, serving: 0, calling: 0, started: 0, active: true }
  const options = { standby, maxInstances, timeouts: { idleMs } }
  const keeper = createStandbyKeeper({
    instances: {
      size: () => world.waiting + world.serving,
      starting: () => 0,
      waiting: () => world.waiting,
      start() {
        world.started++
        world.waiting++
        keeper.onWaiting(20)
      },
      endWaiting(keep) {
        world.waiting = Math.min(world.waiting, keep)
      },
    },
    current: () => ({ contract: 'fd', options }) as unknown as ServedFunction,
    calling: () => world.calling,
    isActive: () => world.active,
  })
  const waits = (count: number) =>
    eventually(`${count} wait`, () => assert.equal(world.waiting, count), { intervalMs: 5 })
  const take = (): void => {
    keeper.onArrival()
    world.waiting--
    world.serving++
    keeper.onPassed()
    keeper.replenish()
  }
  return { world, keeper, waits, take, [Symbol.dispose]: () => keeper.stop() }
}

test('createStandbyKeeper() keeps a stated number, bounded by the most that may exist', async () => {
  using kept = create({ standby: 3, maxInstances: 4 })
  kept.keeper.replenish()
  await kept.waits(3)
  kept.take()
  await kept.waits(3)
  kept.take()
  await delay(30)
  assert.deepEqual([kept.world.waiting, kept.world.serving], [2, 2])
})

test('createStandbyKeeper() starts nothing while nothing may be passed', async () => {
  using kept = create({ standby: 2 })
  kept.world.active = false
  kept.keeper.replenish()
  await delay(30)
  assert.equal(kept.world.started, 0)
  kept.world.active = true
  kept.keeper.replenish()
  await kept.waits(2)
})

test('createStandbyKeeper() ends all when no connection has come for the idle time', async () => {
  using kept = create({ idleMs: 50 })
  for (let n = 0; n < 5; n++) kept.keeper.onArrival()
  kept.keeper.replenish()
  await eventually('one waits', () => assert.ok(kept.world.started > 0), { intervalMs: 5 })
  await kept.waits(0)
})

test('createStandbyKeeper() waits longer after each one that was lost, until one has been used', async () => {
  using kept = create({ standby: 1 })
  kept.keeper.replenish()
  await kept.waits(1)
  const replacedAfterMs = async (): Promise<number> => {
    const begin = performance.now()
    kept.world.waiting = 0
    kept.keeper.onLost(10)
    await kept.waits(1)
    return performance.now() - begin
  }
  assert.ok((await replacedAfterMs()) >= 399)
  assert.ok((await replacedAfterMs()) >= 799)
  kept.keeper.onPassed()
  assert.ok((await replacedAfterMs()) >= 399)
})
