import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { testName } from '../api/fake-platform.ts'
import { FaasError } from '../values/errors.ts'
import { run, serveFake } from './testing.ts'

test('faas list prints a table, or {} with --json on either side of the command', async (context) => {
  const { host } = await serveFake(context)
  assert.match((await run(['list'], { host })).stdout, /no functions yet/)
  assert.equal((await run(['list', '--json'], { host })).stdout, '{}\n')
  assert.equal((await run(['--json', 'list'], { host })).stdout, '{}\n')
  await run(['new', 'constructor'], { host, stdin: 'archive' })
  const { code, stdout, stderr } = await run(['ls'], { host })
  assert.equal(code, 0)
  assert.equal(stderr, '')
  assert.match(stdout, /^NAME +ADDRESS +STATE/)
  assert.match(stdout, /^constructor +fd00:faa5:1::a +idle +0 .* python3 \/app\/handler\.py$/m)
})

test('faas new deploys standard input, and prints name, address, url and command', async (context) => {
  const { host, platform } = await serveFake(context)
  const { code, stdout, stderr } = await run(['new', 'one'], { host, stdin: 'archive' })
  assert.equal(code, 0)
  assert.equal(
    stdout,
    'name      one\naddress   fd00:faa5:1::a\nurl       http://one.faas/\ncontract  fd\nversion   1\ncommand   python3 /app/handler.py\n',
  )
  assert.equal(stderr, 'receive: reading the archive\n')
  assert.equal(platform.received.get(testName('one')), 7)
})

test('faas new deploys a file with options, and shows the upload on a terminal', async (context) => {
  const { host, platform, directory } = await serveFake(context)
  const file = join(directory, 'app.tar')
  await writeFile(file, Buffer.alloc(3 * 2 ** 20))
  const options = [
    '--memory',
    '64Mi',
    '--cpu',
    '500m',
    '-e',
    'A=1',
    '--env',
    'B=2',
    '--max',
    '2',
    '--health',
    '/healthz',
    '--timeout',
    '9s',
  ]
  const { code, stderr } = await run(['new', 'one', file, ...options], { host, isTTY: true })
  assert.equal(code, 0)
  assert.match(stderr, /upload: 3 MiB of 3 MiB, .*\/s/)
  assert.equal(platform.received.get(testName('one')), 3 * 2 ** 20)
  assert.deepEqual(platform.options.get(testName('one')), {
    limits: { memoryBytes: 64 * 2 ** 20, cpuMillis: 500 },
    env: { A: '1', B: '2' },
    timeouts: { totalMs: 9000 },
    maxInstances: 2,
    health: '/healthz',
  })
})

test('faas new --json prints one JSON object and no progress', async (context) => {
  const { host } = await serveFake(context)
  const { stdout, stderr } = await run(['new', 'one', '--json'], { host, stdin: 'archive' })
  assert.deepEqual(Object.keys(JSON.parse(stdout) as object), [
    'name',
    'ip',
    'cmd',
    'contract',
    'version',
    'url',
  ])
  assert.equal(stderr, '')
})

test('faas new refuses a bad name, a bad option, a directory and a terminal, each with a hint', async (context) => {
  const { host, directory, platform } = await serveFake(context)
  for (const [words, stdin, message] of [
    [['new', 'Bad'], 'x', /must be a DNS label.*\(NAME_INVALID\)\nhint: /],
    [['new', 'api'], 'x', /reserved \(NAME_RESERVED\)\nhint: /],
    [['new', 'one', '--memory', '1'], 'x', /memory: expected an amount .*\(OPTION_INVALID\)\nhint: /],
    [['new', 'one', directory], 'x', /is a directory .*\nhint: /],
    [['new', 'one'], undefined, /standard input is the terminal .*\nhint: docker save/],
  ] as const) {
    const { code, stderr, stdout } = await run(words, { host, ...(stdin === undefined ? {} : { stdin }) })
    assert.equal(code, 2, stderr)
    assert.match(stderr, message)
    assert.equal(stdout, '')
  }
  assert.equal(platform.received.size, 0)
})

test("faas new ends with the server's failure, also after its first step", async (context) => {
  const { host } = await serveFake(context)
  const { code, stderr } = await run(['new', 'one'], { host, stdin: '' })
  assert.equal(code, 1)
  assert.match(stderr, /error: the archive is empty \(ARCHIVE_INVALID\)\n$/)
})

test('faas new says when the function is busy, before anything is sent', async (context) => {
  const { host } = await serveFake(context, {
    deploy: async () => {
      throw new FaasError('FUNCTION_BUSY', 'one is being deployed', { hint: 'wait' })
    },
  })
  const { code, stderr } = await run(['new', 'one'], { host, stdin: 'x'.repeat(1_000_000) })
  assert.equal(code, 1)
  assert.equal(stderr, 'error: one is being deployed (FUNCTION_BUSY)\nhint: wait\n')
})

test('faas versions lists what is kept, and faas rollback deploys one of it again', async (context) => {
  const { host } = await serveFake(context)
  await run(['new', 'one'], { host, stdin: 'x' })
  assert.equal((await run(['rollback', 'one'], { host })).code, 3)
  await run(['new', 'one'], { host, stdin: 'x' })
  assert.match((await run(['rollback', 'one'], { host })).stdout, /^version +3$/m)
  assert.match((await run(['rollback', 'one', '1'], { host })).stdout, /^version +4$/m)
  const { stdout } = await run(['versions', 'one'], { host })
  assert.match(stdout, /^VERSION +IMAGE +CONTRACT/)
  assert.match(stdout, /^4 +0{12} +fd +\S+ +current +python3/m)
  const versions = JSON.parse((await run(['versions', 'one', '--json'], { host })).stdout) as object[]
  assert.equal(versions.length, 4)
  const unknown = await run(['rollback', 'one', '9'], { host })
  assert.equal(unknown.code, 3)
  assert.match(unknown.stderr, /\(VERSION_UNKNOWN\)/)
})

test('faas ip prints the address alone', async (context) => {
  const { host } = await serveFake(context)
  await run(['new', 'one'], { host, stdin: 'x' })
  assert.equal((await run(['ip', 'one'], { host })).stdout, 'fd00:faa5:1::a\n')
})

test('faas describe shows limits and counters', async (context) => {
  const { host } = await serveFake(context)
  await run(['new', 'one'], { host, stdin: 'x' })
  const { stdout } = await run(['describe', 'one'], { host })
  assert.match(stdout, /^memory +512 MiB$/m)
  assert.match(stdout, /^connections +3 accepted, 2 passed, 1 refused, 0 failed$/m)
  const json = JSON.parse((await run(['describe', 'one', '--json'], { host })).stdout) as {
    stats: { connections: object }
  }
  assert.ok(json.stats.connections)
})

test('faas logs prints the last lines; --json one object a line', async (context) => {
  const { host } = await serveFake(context)
  await run(['new', 'one'], { host, stdin: 'x' })
  const { stdout } = await run(['logs', 'one', '-n', '1'], { host })
  assert.equal(stdout, '2026-01-01T00:00:00.000Z 1a2b stdout: three\n')
  const lines = (await run(['logs', 'one', '--json'], { host })).stdout.trim().split('\n')
  assert.deepEqual(
    lines.map((line) => (JSON.parse(line) as { text: string }).text),
    ['one', 'two', 'three'],
  )
})

test('faas logs -f stays until it is interrupted', async (context) => {
  const { host } = await serveFake(context)
  await run(['new', 'one'], { host, stdin: 'x' })
  const interrupt = new AbortController()
  const running = run(['logs', '-f', 'one'], { host, signal: interrupt.signal })
  const first = await Promise.race([
    running,
    new Promise((resolve) => setTimeout(resolve, 300, 'still there')),
  ])
  assert.equal(first, 'still there')
  interrupt.abort()
  assert.equal((await running).stdout.trim().split('\n').length, 3)
})

test('faas logs shows control characters as text on a terminal, and leaves them alone elsewhere', async (context) => {
  const { host } = await serveFake(context, {
    logs: async (name) =>
      (async function* () {
        yield { time: 't', function: name, instance: 'i', stream: 'stdout' as const, text: 'a\x1b[2Jb\tc' }
      })(),
  })
  assert.equal((await run(['logs', 'one'], { host, isTTY: true })).stdout, 't i stdout: a\\x1b[2Jb\tc\n')
  assert.equal((await run(['logs', 'one'], { host })).stdout, 't i stdout: a\x1b[2Jb\tc\n')
})

test('faas rm goes on past one that is not there, and ends with 3', async (context) => {
  const { host } = await serveFake(context)
  await run(['new', 'one'], { host, stdin: 'x' })
  const { code, stdout, stderr } = await run(['rm', 'nothing', 'one'], { host })
  assert.equal(code, 3)
  assert.equal(stdout, 'one\n')
  assert.match(stderr, /^error: there is no function "nothing" \(FUNCTION_UNKNOWN\)\n$/)
})

test('faas status shows each check, and ends with 1 when functions do not answer', async (context) => {
  const { host } = await serveFake(context)
  const well = await run(['status'], { host })
  assert.equal(well.code, 0)
  assert.match(well.stdout, /^dns +ok +answers$/m)
  const ill = await serveFake(context, {
    health: async () => ({
      status: 'failing',
      checks: { firewall: { status: 'failing', message: 'not loaded' } },
    }),
  })
  const { code, stdout } = await run(['status'], { host: ill.host })
  assert.equal(code, 1)
  assert.match(stdout, /^firewall +failing +not loaded$/m)
})

test('faas version works without a server', async (context) => {
  const { host } = await serveFake(context)
  assert.equal((await run(['version'], { host })).stdout, 'faas 1.2.3\nfaasd 0.0.0-test\n')
  const alone = await run(['version', '--json'], { host: 'unix:///nowhere/api.sock' })
  assert.equal(alone.code, 0)
  assert.deepEqual(JSON.parse(alone.stdout), { client: '1.2.3', server: null })
  assert.equal((await run(['--version'], { host })).stdout, '1.2.3\n')
})

test('what cannot be reached ends with 5 and says how to start it', async () => {
  const { code, stderr } = await run(['list'], { host: 'unix:///nowhere/api.sock' })
  assert.equal(code, 5)
  assert.match(stderr, /DAEMON_UNREACHABLE\)\nhint: .*sudo faas up/)
})

test('a wrong command line ends with 2, and help with 0', async (context) => {
  const { host } = await serveFake(context)
  for (const words of [
    ['nothing'],
    ['list', '--nothing'],
    ['ip'],
    ['ip', 'one', 'two'],
    ['completion', 'tcsh'],
  ]) {
    const { code, stderr, stdout } = await run(words, { host })
    assert.equal(code, 2, words.join(' '))
    assert.match(stderr, /^error: /)
    assert.equal(stdout, '')
  }
  const help = await run(['--help'], { host })
  assert.equal(help.code, 0)
  assert.match(help.stdout, /Exit codes:/)
})

test('errors are coloured on a terminal only, and not with NO_COLOR', async () => {
  const host = 'unix:///nowhere/api.sock'
  const escape = '\x1b['
  assert.ok((await run(['list'], { host, isTTY: true })).stderr.includes(escape))
  assert.ok(!(await run(['list'], { host, isTTY: true, env: { NO_COLOR: '1' } })).stderr.includes(escape))
  assert.ok(!(await run(['list'], { host })).stderr.includes(escape))
})

test('faas dial-stdio joins the streams to the API, also when the input ends first', async (context) => {
  const { host } = await serveFake(context)
  const request = 'GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
  const { code, stdout } = await run(['dial-stdio'], { host, stdin: request })
  assert.equal(code, 0)
  assert.match(stdout, /^HTTP\/1\.1 200 OK[\s\S]*"version":"0\.0\.0-test"/)
})
