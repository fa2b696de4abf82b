import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultLimits } from '../runtime/container.ts'
import { defaultTimeouts, type FunctionOptions } from './function.ts'
import { uselessOptions } from './release.ts'

const plain: FunctionOptions = {
  limits: defaultLimits,
  timeouts: defaultTimeouts,
  maxInstances: 1,
  minInstances: 0,
  writable: false,
  env: [],
}

test('uselessOptions() names what was stated for the other contract, and nothing by default', () => {
  assert.deepEqual(uselessOptions('fd', plain), [])
  assert.deepEqual(uselessOptions('listen', plain), [])
  const forFd: FunctionOptions = { ...plain, standby: 2, reuse: true }
  assert.deepEqual(uselessOptions('fd', forFd), [])
  assert.deepEqual(uselessOptions('listen', forFd), [
    '--standby has no effect: the image speaks the contract listen',
    '--reuse has no effect: the image speaks the contract listen',
  ])
  const forListen: FunctionOptions = {
    ...plain,
    minInstances: 1,
    timeouts: { ...defaultTimeouts, pauseMs: 1 },
  }
  assert.deepEqual(uselessOptions('listen', forListen), [])
  assert.equal(uselessOptions('fd', forListen).length, 2)
})
