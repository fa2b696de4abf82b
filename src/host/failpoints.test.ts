import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseFailpoints, reachNothing } from './failpoints.ts'

test('parseFailpoints() counts each term down before the next one holds', () => {
  const reach = parseFailpoints('D8:2*off->1*error(ENOSPC); D9:error(EIO)')
  void reach('D8')
  void reach('D8')
  assert.throws(() => reach('D8'), { code: 'ENOSPC' })
  void reach('D8')
  for (const _time of [1, 2]) assert.throws(() => reach('D9'), { code: 'EIO' })
  assert.equal(reach('D1'), undefined)
  assert.equal(reachNothing('D1'), undefined)
})

test('a failpoint that kills ends the process at once, by SIGKILL', () => {
  const program = `
    import { parseFailpoints } from ${JSON.stringify(join(import.meta.dirname, 'failpoints.ts'))}
    const reach = parseFailpoints('D7:1*off->1*kill')
    reach('D7'); console.log('first'); reach('D7'); console.log('second')`
  const { signal, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  })
  assert.equal(signal, 'SIGKILL')
  assert.equal(stdout, 'first\n')
})

test('a failpoint that delays is waited for', async () => {
  const begin = performance.now()
  await parseFailpoints('D3:delay(30)')('D3')
  assert.ok(performance.now() - begin > 20)
})

test('parseFailpoints() refuses other text', () => {
  for (const text of ['', 'D1', 'D1:', 'D1:explode', 'D1:x*kill', 'D1:1*kill->', ':kill']) {
    assert.throws(() => parseFailpoints(text), { code: 'OPTION_INVALID' }, text)
  }
})
