import assert from 'node:assert/strict'
import { test } from 'node:test'
import { healthcheckShape, parseHealthcheck } from './healthcheck.ts'

const parse = (value: unknown) => parseHealthcheck(healthcheckShape.parse(value))
const second = 1_000_000_000

test('parseHealthcheck() reads a command, its times in milliseconds', () => {
  const Test = ['CMD', 'curl', '-f', 'http://localhost/']
  const times = { Interval: 5 * second, Timeout: second / 2, StartPeriod: 60 * second, Retries: 5 }
  assert.deepEqual(parse({ Test, ...times }), {
    argv: ['curl', '-f', 'http://localhost/'],
    intervalMs: 5000,
    timeoutMs: 500,
    startPeriodMs: 60_000,
    retries: 5,
  })
})

test("parseHealthcheck() runs a shell command by the shell and takes Docker's defaults", () => {
  assert.deepEqual(parse({ Test: ['CMD-SHELL', 'pg_isready || exit 1'], Retries: 0 }), {
    argv: ['/bin/sh', '-c', 'pg_isready || exit 1'],
    intervalMs: 30_000,
    timeoutMs: 30_000,
    startPeriodMs: 0,
    retries: 3,
  })
})

test('parseHealthcheck() finds none where there is none, it is turned off, or its kind is not known', () => {
  for (const value of [
    undefined,
    null,
    {},
    { Test: [] },
    { Test: ['NONE'] },
    { Test: ['CMD'] },
    { Test: ['X', 'y'] },
  ])
    assert.equal(parse(value), undefined, JSON.stringify(value))
})

test('parseHealthcheck() bounds what is beyond sense and refuses what is no healthcheck', () => {
  const bounded = parse({ Test: ['CMD', 'x'], Interval: 1e300, Timeout: 1, Retries: 1e9 })
  assert.deepEqual([bounded?.intervalMs, bounded?.timeoutMs, bounded?.retries], [86_400_000, 1, 100])
  for (const value of [
    { Test: 'CMD x' },
    { Test: ['CMD', 'a\0b'] },
    { Interval: -1 },
    { Interval: '5s' },
    [],
  ])
    assert.ok(!healthcheckShape.safeParse(value).success, JSON.stringify(value))
})
