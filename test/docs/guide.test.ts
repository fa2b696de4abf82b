/**
 * Runs docs/guide.md: each command on the machine that it names, in order, comparing its output with what the guide states.
 * `CODE` becomes the code that the last invitation printed. Needs root.
 */
import assert from 'node:assert/strict'
import { copyFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { buildPythonImage } from '../images/build.ts'
import { createStage } from './stage.ts'
import { parseSteps } from './transcript.ts'

const docs = join(import.meta.dirname, '../../docs')

test('docs/guide.md does what it says, command by command', async () => {
  await using stage = await createStage()
  const guide = await readFile(join(docs, 'guide.md'), 'utf8')
  const steps = parseSteps(guide)
  assert.ok(steps.length > 40)
  assert.doesNotMatch(guide, /^```(?!console$|$)/m, 'a block of commands that would not be run')
  let code = ''
  for (const step of steps) {
    const output = await stage.play({ ...step, command: step.command.replace(/\bCODE\b/, code) })
    code = /^faas1-\S+$/m.exec(output)?.[0] ?? code
  }
})

test('the handler of docs/contracts.md answers as it says, with the address of its caller', async () => {
  const text = await readFile(join(docs, 'contracts.md'), 'utf8')
  const handler = /^```python\n([\s\S]*?)^```$/m.exec(text)?.[1]
  assert.ok(handler !== undefined)
  const archive = await buildPythonImage({ name: 'hello', handler })
  await using stage = await createStage()
  const { lab, play } = stage
  await copyFile(archive, join(lab.directory, 'hello.tar'))
  const steps: readonly (readonly ['server' | 'device', string, ...string[]])[] = [
    ['server', 'FAAS_VPN_ENDPOINT=203.0.113.10 faas up', '…', '[init] faasd started successfully'],
    ['server', `faas new hello ${lab.directory}/hello.tar`],
    ['device', 'FAAS_HOST=ssh://root@203.0.113.10 faas vpn connect laptop'],
    ['device', 'curl -s http://hello.faas/', 'hello, fd00:faa5:0:100::a'],
  ]
  for (const [machine, command, ...expected] of steps) await play({ machine, command, expected, line: 0 })
})
