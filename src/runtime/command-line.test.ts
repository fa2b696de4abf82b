import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { exec } from '../host/exec.ts'
import { FaasError } from '../values/errors.ts'
import type { Cgroups } from './cgroups.ts'
import { lastWords, parseList } from './command-line.ts'
import { createCrun } from './crun.ts'
import { createRunc } from './runc.ts'

const id = 'faas-hello-0123abcd'

/** A shell script in place of the runtime, and cgroups that only write down what they are asked. */
async function fakeRuntime(script: string, hasCgroup = false) {
  const directory = await mkdtemp(join(tmpdir(), 'runtime-'))
  const program = join(directory, 'runtime')
  await writeFile(program, `#!/bin/sh\n${script}\n`)
  await chmod(program, 0o755)
  const bundle = join(directory, 'bundle')
  await mkdir(bundle)
  const uid = process.getuid?.() ?? 0
  const config = { process: { user: { uid: 0 } }, linux: { uidMappings: [{ hostID: uid }] } }
  await writeFile(join(bundle, 'config.json'), JSON.stringify(config))
  const stateRoot = join(directory, 'state')
  await mkdir(stateRoot)
  const asked: string[] = []
  const cgroups: Cgroups = {
    facts: { version: 2, swap: true, hierarchies: [] },
    parent: 'test',
    has: async () => hasCgroup,
    remove: async (name) => void asked.push(`remove ${name}`),
    list: async () => [],
    cleanUp: async () => {},
  }
  const output = await open(join(directory, 'output'), 'w')
  const deps = { exec, cgroups, stateRoot, program }
  return {
    deps,
    runc: createRunc(deps),
    asked,
    stateRoot,
    run: { id, bundle, stdout: output.fd, stderr: output.fd },
    async [Symbol.asyncDispose]() {
      await output.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

const runtimeFailed = (words: RegExp) => (error: unknown) =>
  error instanceof FaasError && error.code === 'RUNTIME_FAILED' && words.test(error.message)

test('run() answers the pid that the runtime wrote', async () => {
  await using fake = await fakeRuntime(
    'while [ "$1" != --pid-file ]; do shift; done; printf 4711 > "$2"; read line; [ -z "$line" ]; exit 0',
  )
  assert.deepEqual(await fake.runc.run(fake.run), { pid: 4711 })
  assert.deepEqual(fake.asked, [])
})

test("run() throws RUNTIME_FAILED with the runtime's last words and removes what was made", async () => {
  const log = '{"level":"error","msg":"exec: \\"/app\\": no such file"}'
  await using fake = await fakeRuntime(
    `[ "$3" = --log ] || exit 0; echo warning > "$4"; echo '${log}' >> "$4"; mkdir "$2/${id}"; exit 1`,
  )
  await assert.rejects(
    fake.runc.run(fake.run),
    runtimeFailed(/could not start .*exec: "\/app": no such file$/),
  )
  assert.deepEqual(fake.asked, [`remove ${id}`])
  assert.deepEqual(await readdir(fake.stateRoot), [])
})

test('run() throws RUNTIME_FAILED when the runtime says success and no pid', async () => {
  await using fake = await fakeRuntime('exit 0')
  await assert.rejects(fake.runc.run(fake.run), runtimeFailed(/did not say its pid/))
  assert.deepEqual(fake.asked, [`remove ${id}`])
})

test('run() kills a runtime that hangs, with its children', async () => {
  await using fake = await fakeRuntime('[ "$3" = --log ] || exit 0; sleep 100 & sleep 100')
  await assert.rejects(
    fake.runc.run({ ...fake.run, timeoutMs: 100 }),
    runtimeFailed(/took longer than 100 ms/),
  )
  assert.deepEqual(fake.asked, [`remove ${id}`])
})

test('run() stops at an abort and keeps its reason as cause', async () => {
  await using fake = await fakeRuntime('[ "$3" = --log ] || exit 0; sleep 100')
  const reason = new Error('the client has gone')
  const controller = new AbortController()
  setTimeout(() => controller.abort(reason), 50)
  const running = fake.runc.run({ ...fake.run, signal: controller.signal })
  await assert.rejects(running, (error: unknown) => error instanceof FaasError && error.cause === reason)
  await assert.rejects(
    fake.runc.run({ ...fake.run, signal: AbortSignal.abort(reason) }),
    runtimeFailed(/cancelled/),
  )
})

test('run() throws PROGRAM_MISSING when the runtime is not installed', async () => {
  await using fake = await fakeRuntime('exit 0')
  const absent = createCrun({ ...fake.deps, program: join(fake.stateRoot, 'absent') })
  await assert.rejects(
    absent.run(fake.run),
    (error: unknown) => error instanceof FaasError && error.code === 'PROGRAM_MISSING',
  )
})

test('delete() removes what the runtime does not know or cannot read', async () => {
  await using fake = await fakeRuntime('echo "container does not exist" >&2; exit 1')
  await mkdir(join(fake.stateRoot, id))
  await fake.runc.delete(id)
  await fake.runc.delete(id)
  assert.deepEqual(await readdir(fake.stateRoot), [])
  assert.deepEqual(fake.asked, [`remove ${id}`, `remove ${id}`])
})

test('delete() asks the runtime only for a container outside of our cgroups', async () => {
  const script = '[ "$*" = "--root $2 delete --force faas-hello-0123abcd" ] && touch "$2/asked"'
  for (const hasCgroup of [true, false]) {
    await using fake = await fakeRuntime(script, hasCgroup)
    await mkdir(join(fake.stateRoot, id))
    await fake.runc.delete(id)
    assert.deepEqual(await readdir(fake.stateRoot), hasCgroup ? [] : ['asked'])
  }
})

test('run() refuses to print to a device of the host', async () => {
  await using fake = await fakeRuntime('exit 0')
  await using device = await open('/dev/null', 'w')
  await assert.rejects(fake.runc.run({ ...fake.run, stderr: device.fd }), /cannot print to a device/)
})

test('an id that could be an option or a path reaches no command line', async () => {
  await using fake = await fakeRuntime('exit 0')
  for (const bad of ['', '-f', '--all', '../x', 'a/b', 'A', 'a b', 'a\n', `${'a'.repeat(129)}`]) {
    await assert.rejects(fake.runc.delete(bad), /is no container id/)
    await assert.rejects(fake.runc.run({ ...fake.run, id: bad }), /is no container id/)
  }
})

test('list() shows what a cut-off start left as broken', async () => {
  await using fake = await fakeRuntime('echo null')
  await mkdir(join(fake.stateRoot, id))
  assert.deepEqual(await fake.runc.list(), [{ id, pid: 0, status: 'broken', bundle: '' }])
})

test('parseList() reads what runc and crun print', () => {
  assert.deepEqual(parseList('null\n'), [])
  assert.deepEqual(parseList(''), [])
  const entry = { id, pid: 12, status: 'running', bundle: '/b' }
  assert.deepEqual(parseList(JSON.stringify([{ ociVersion: '1.0.2', ...entry, owner: 'root' }])), [entry])
})

test('lastWords() takes the message of the last log line, or the line itself', () => {
  assert.equal(lastWords('{"level":"warning","msg":"a"}\n{"level":"error","msg":"b"}\n'), 'b')
  assert.equal(lastWords('fatal error: out of memory\n'), 'fatal error: out of memory')
  assert.equal(lastWords(''), '')
})
