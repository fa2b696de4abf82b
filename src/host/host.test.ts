import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { eventually } from './eventually.ts'
import { exec } from './exec.ts'
import { readTextIfExists, writeFileAtomic } from './files.ts'

test('exec() passes arguments as they are and answers the output', async () => {
  const { stdout } = await exec('printf', ['%s', '$(id) `id` ; "quoted"'])
  assert.equal(stdout, '$(id) `id` ; "quoted"')
})

test('exec() feeds input and does not mind a child that reads none of it', async () => {
  assert.equal((await exec('cat', [], { input: 'hello' })).stdout, 'hello')
  await exec('true', [], { input: 'x'.repeat(1_000_000) })
})

test('exec() says what failed, with the last words of stderr', async () => {
  await assert.rejects(exec('sh', ['-c', 'echo broken >&2; exit 3']), {
    code: 'COMMAND_FAILED',
    message: /exited with 3: broken/,
  })
  assert.equal((await exec('sh', ['-c', 'exit 3'], { okCodes: [3] })).code, 3)
})

test('exec() names a missing program, a time limit and a cancellation', async () => {
  await assert.rejects(exec('no-such-program-here', []), { code: 'PROGRAM_MISSING' })
  await assert.rejects(exec('sleep', ['30'], { timeoutMs: 50 }), { code: 'COMMAND_TIMEOUT' })
  await assert.rejects(exec('sleep', ['30'], { signal: AbortSignal.timeout(50) }), { message: /cancelled/ })
})

test('writeFileAtomic() replaces content with the wanted mode and leaves nothing beside it', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'faas-files-'))
  const path = join(directory, 'state')
  assert.equal(await readTextIfExists(path), undefined)
  await writeFileAtomic(path, 'one')
  await writeFileAtomic(path, 'two', { mode: 0o600 })
  assert.equal(await readFile(path, 'utf8'), 'two')
  assert.equal((await stat(path)).mode & 0o777, 0o600)
  await assert.rejects(writeFileAtomic(join(directory, 'missing', 'state'), 'x'))
  assert.deepEqual(await readdir(directory), ['state'])
  await rm(directory, { recursive: true })
})

test('eventually() repeats until the attempt returns, and names what it waited for when it never does', async () => {
  let attempts = 0
  const attempt = () => {
    attempts++
    if (attempts < 3) throw new Error('not yet')
    return attempts
  }
  assert.equal(await eventually('the third time', attempt, { intervalMs: 1 }), 3)
  const never = eventually('the impossible', () => assert.fail('no'), { timeoutMs: 20, intervalMs: 5 })
  await assert.rejects(never, /the impossible: not within 20 ms; last: no/)
})
