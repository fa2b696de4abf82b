import assert from 'node:assert/strict'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { testName } from '../api/fake-platform.ts'
import { run, serveFake } from './testing.ts'

/** Puts programs of these names and shell lines on PATH, and nothing else but `/usr/bin:/bin` behind a switch. */
async function programs(context: TestContext, scripts: Record<string, string>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'faas-archive-'))
  for (const [name, line] of Object.entries(scripts)) {
    await writeFile(join(directory, name), `#!/bin/sh\n${line}\n`)
    await chmod(join(directory, name), 0o755)
  }
  const before = process.env['PATH']
  process.env['PATH'] = directory
  context.after(async () => {
    process.env['PATH'] = before
    await rm(directory, { recursive: true, force: true })
  })
}

test('faas new takes an image by docker save, with its name as one argument', async (context) => {
  const { host, platform } = await serveFake(context)
  await programs(context, { docker: '[ "$*" = "save -- app:1" ] && echo saved' })
  const { code, stderr } = await run(['new', 'one', 'app:1'], { host })
  assert.equal(code, 0, stderr)
  assert.equal(platform.received.get(testName('one')), 'saved\n'.length)
})

test('faas new takes podman where there is no docker', async (context) => {
  const { host, platform } = await serveFake(context)
  await programs(context, { podman: 'echo from podman' })
  assert.equal((await run(['new', 'one', 'app'], { host })).code, 0)
  assert.equal(platform.received.get(testName('one')), 'from podman\n'.length)
})

test('faas new deploys nothing when docker save fails half-way, and says what docker said', async (context) => {
  const { host, platform } = await serveFake(context)
  await programs(context, { docker: 'echo half; echo "no such image: app" >&2; exit 1' })
  const { code, stderr } = await run(['new', 'one', 'app'], { host })
  assert.equal(code, 1)
  assert.match(
    stderr,
    /error: docker save app failed: no such image: app \(COMMAND_FAILED\)\nhint: .*docker images/,
  )
  assert.equal(platform.received.size, 0)
})

test('faas new says that there is neither a file nor a docker', async (context) => {
  const { host } = await serveFake(context)
  await programs(context, {})
  const { code, stderr } = await run(['new', 'one', 'nothing'], { host })
  assert.equal(code, 1)
  assert.match(stderr, /there is no file nothing, and no docker .*\(PROGRAM_MISSING\)\nhint: /)
  for (const path of ['nothing.tar', '/nothing', './nothing', 'nothing.tar.gz']) {
    const missing = await run(['new', 'one', path], { host })
    assert.equal(missing.code, 2)
    assert.match(missing.stderr, /there is no file .*nothing.*\(OPTION_INVALID\)\nhint: /)
  }
})
