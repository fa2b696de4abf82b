import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MountPoint } from '../images/mount-points.ts'
import { defaultLimits } from '../runtime/container.ts'
import { FaasError } from '../values/errors.ts'
import { scratchOf } from './scratch.ts'

const point = (path: string, changes: Partial<MountPoint> = {}): MountPoint => ({
  path,
  uid: 5,
  gid: 6,
  mode: 0o755,
  volume: false,
  content: { bytes: 0, entries: 0, copyable: true },
  ...changes,
})
const mib = 1024 * 1024
const content = (bytes: number, entries = 1, copyable = true) => ({
  volume: true,
  content: { bytes, entries, copyable },
})
const readOnly = { limits: { ...defaultLimits, tmpBytes: mib }, writable: false }

test('scratchOf() keeps owner and mode, and copies only where the image has something', () => {
  assert.deepEqual(scratchOf([point('/run'), point('/data', content(10))], readOnly), [
    { path: '/run', uid: 5, gid: 6, mode: 0o755, copy: false },
    { path: '/data', uid: 5, gid: 6, mode: 0o755, copy: true },
  ])
})

test('scratchOf() leaves volumes to a writable root', () => {
  const points = [point('/run'), point('/data', content(99 * mib))]
  assert.deepEqual(
    scratchOf(points, { ...readOnly, writable: true }).map(({ path }) => path),
    ['/run'],
  )
})

test('scratchOf() refuses a volume whose content does not fit, naming the options that help', () => {
  for (const [volume, hint] of [
    [content(2 * mib), /--writable, or with --tmp 3Mi/],
    [content(0, 300), /--writable/],
    [content(1, 1, false), /--writable/],
  ] as const) {
    assert.throws(
      () => scratchOf([point('/data', volume)], readOnly),
      (error) =>
        error instanceof FaasError && error.code === 'IMAGE_CONFIG_INVALID' && hint.test(error.hint ?? ''),
    )
  }
})
