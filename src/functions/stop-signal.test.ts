import assert from 'node:assert/strict'
import { test } from 'node:test'
import { signalNumber } from './stop-signal.ts'

const cases: readonly (readonly [string, number])[] = [
  ['SIGTERM', 15],
  ['TERM', 15],
  ['sigquit', 3],
  ['SIGWINCH', 28],
  ['9', 9],
  ['64', 64],
  ['SIGRTMIN', 34],
  ['RTMIN+3', 37],
  ['SIGRTMAX-2', 62],
  ['RTMAX', 64],
]

for (const [text, number] of cases) {
  test(`signalNumber() of ${text} is ${number}`, () => assert.equal(signalNumber(text), number))
}

test('signalNumber() of what is no signal is SIGTERM', () => {
  for (const text of ['', '0', '65', '99', 'SIGNOTHING', 'RTMIN-1', 'RTMIN+99', 'RTMAX+1', 'constructor'])
    assert.equal(signalNumber(text), 15, text)
})
