import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createFunctionLogs } from './function-log.ts'
import { createLineSplitter } from './lines.ts'
import { createLog } from './log.ts'

test('createLog() keeps a message on its line and its control characters harmless', () => {
  const lines: string[] = []
  const log = createLog({ write: (line) => lines.push(line) })
  log.info('init', 'faasd started successfully')
  log.error('f/1', 'Container stderr: a\n[init] forged \u001b[2J')
  assert.deepEqual(lines, [
    '[init] faasd started successfully\n',
    '[f/1] error: Container stderr: a\\n[init] forged \\x1b[2J\n',
  ])
})

const splitter = (lines: string[], nowMs = () => 0) =>
  createLineSplitter({ maxLineBytes: 8, maxLinesPerSecond: 3, nowMs, onLine: (line) => lines.push(line) })

test('createLineSplitter() joins chunks to lines and cuts long ones', () => {
  const lines: string[] = []
  const split = splitter(lines)
  for (const chunk of ['on', 'e\r\ntw', 'o\n', '0123456789', 'abc\nrest']) split.push(Buffer.from(chunk))
  split.end()
  assert.deepEqual(lines, ['one', 'two', '01234567', '(1 lines dropped: more than 3 a second)'])
})

test('createLineSplitter() counts what comes faster than its limit and says so in the next second', () => {
  const lines: string[] = []
  let now = 0
  const split = splitter(lines, () => now)
  split.push(Buffer.from('x\n'.repeat(10)))
  now = 1000
  split.push(Buffer.from('y\n'))
  assert.deepEqual(lines, ['x', 'x', 'x', '(7 lines dropped: more than 3 a second)', 'y'])
})

const entry = (text: string) =>
  ({ time: new Date(0), function: 'f', instance: 'i', stream: 'stdout', text }) as const

test('createFunctionLogs() stays bounded and keeps the newest lines', () => {
  const logs = createFunctionLogs()
  for (let index = 0; index < 5000; index++) logs.append(entry(`line ${index}`))
  const kept = logs.tail('f', 10_000)
  assert.ok(kept.length <= 1250)
  assert.equal(kept.at(-1)?.text, 'line 4999')
  for (let index = 0; index < 500; index++) logs.append(entry('x'.repeat(8192)))
  assert.ok(logs.tail('f', 10_000).reduce((sum, { text }) => sum + text.length, 0) <= 320 * 1024 + 8192)
})

test('follow() gives each new line until disposed', () => {
  const logs = createFunctionLogs()
  const seen: string[] = []
  {
    using _following = logs.follow('f', ({ text }) => seen.push(text))
    logs.append(entry('one'))
    logs.append({ ...entry('other'), function: 'g' })
  }
  logs.append(entry('two'))
  assert.deepEqual(seen, ['one'])
  assert.deepEqual(logs.tail('f', 1)[0]?.text, 'two')
  logs.forget('f')
  assert.deepEqual(logs.tail('f', 5), [])
})
