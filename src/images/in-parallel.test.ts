import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { inParallel } from './in-parallel.ts'

test('inParallel() does all in order, no more than `width` at a time', async () => {
  const begun: number[] = []
  let running = 0
  await inParallel([1, 2, 3, 4, 5], 2, undefined, async (item) => {
    begun.push(item)
    running++
    assert.ok(running <= 2)
    await delay(1)
    running--
  })
  assert.deepEqual(begun, [1, 2, 3, 4, 5])
})

test('inParallel() throws the first failure when what runs has been aborted and has ended', async () => {
  const ended: number[] = []
  const work = async (item: number, signal: AbortSignal): Promise<void> => {
    if (item === 2) throw new Error('two')
    await delay(60_000, undefined, { signal }).catch(() => {})
    ended.push(item)
    throw new Error('aborted')
  }
  await assert.rejects(inParallel([1, 2, 3], 2, undefined, work), { message: 'two' })
  assert.deepEqual(ended, [1])
})

test('inParallel() gives up when its signal aborts', async () => {
  const cancel = new AbortController()
  const working = inParallel([1, 2, 3], 1, cancel.signal, async (_item, signal) => {
    cancel.abort(new Error('cancelled'))
    signal.throwIfAborted()
  })
  await assert.rejects(working, { message: 'cancelled' })
})
