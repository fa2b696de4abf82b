import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCpu, parseDuration, parseMemory } from './quantities.ts'

const cases: [(text: string) => number | undefined, string, number | undefined][] = [
  [parseMemory, '512Mi', 512 * 2 ** 20],
  [parseMemory, '1.5Gi', 1.5 * 2 ** 30],
  [parseMemory, '64M', 64_000_000],
  [parseMemory, '4096', 4096],
  [parseMemory, '512mi', undefined],
  [parseMemory, '512 Mi', undefined],
  [parseMemory, '-1', undefined],
  [parseMemory, '1e9', undefined],
  [parseMemory, '', undefined],
  [parseMemory, '999999999999999Ti', undefined],
  [parseCpu, '500m', 500],
  [parseCpu, '1.5', 1500],
  [parseCpu, '2', 2000],
  [parseCpu, '2s', undefined],
  [parseDuration, '500ms', 500],
  [parseDuration, '30s', 30_000],
  [parseDuration, '2m', 120_000],
  [parseDuration, '1h', 3_600_000],
  [parseDuration, '30', undefined],
]

for (const [parse, text, expected] of cases) {
  test(`${parse.name}(${JSON.stringify(text)}) is ${expected}`, () => assert.equal(parse(text), expected))
}
