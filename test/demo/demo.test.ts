/** `./run demo` as a newcomer uses it. In a temporary directory of its own, so that a demo that stands is not disturbed. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { type ExecResult, exec } from '../../src/host/exec.ts'

const run = join(dirname(dirname(import.meta.dirname)), 'run')
const anyCode = Array.from({ length: 256 }, (_, code) => code)

interface Place extends Disposable {
  readonly directory: string
  readonly env: Record<string, string>
  demo(args: readonly string[], cwd?: string): Promise<ExecResult>
}

function createPlace(): Place {
  const directory = mkdtempSync(join(tmpdir(), 'faasd-demo-test-'))
  const env = { ...(process.env as Record<string, string>), TMPDIR: directory }
  return {
    directory,
    env,
    demo: (args, cwd = directory) =>
      exec(run, ['demo', ...args], { cwd, env, timeoutMs: 120_000, okCodes: anyCode }),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  }
}

test('demo prints real commands and the function’s answer, succeeds, and leaves nothing', async () => {
  using place = createPlace()
  const { stdout, stderr, code } = await place.demo([])
  assert.equal(code, 0, stderr)
  assert.match(stdout, /^server# faas up$/m)
  assert.match(stdout, /\[init\] faasd started successfully/)
  assert.match(stdout, /✅ Connected!/)
  assert.match(
    stdout,
    /^device# curl http:\/\/fibonacci\.faas\/\?n=10\n\s+Fibonacci sequence \(10 steps\):\n\s+0, 1, 1, 2, 3, 5, 8, 13, 21, 34$/m,
  )
  assert.match(stdout, /^device# curl http:\/\/hello\.faas\/\n\s+hello from version one$/m)
  assert.match(stdout, /woke and answered in [\d.]+ s/)
  assert.match(stdout, /hello from version two\n\n✅ The demo is complete/)
  await leavesNothing(place)
})

test('demo --keep leaves the machines, --exec runs in them with cwd, input and exit code, --down removes them', async () => {
  using place = createPlace()
  try {
    const kept = await place.demo(['--keep'])
    assert.equal(kept.code, 0, kept.stderr)
    const inside = (machine: string, ...argv: string[]) => place.demo(['--exec', machine, ...argv])
    assert.equal((await inside('server', 'pwd')).stdout, `${place.directory}\n`)
    assert.equal((await inside('server', 'sh', '-c', 'exit 41')).code, 41)
    assert.match((await inside('server', 'faas', 'list')).stdout, /fibonacci/)
    assert.match((await inside('device', 'curl', '-s', 'http://fibonacci.faas/?n=3')).stdout, /0, 1, 1$/m)
    assert.equal((await inside('nowhere', 'true')).code, 2)
    const again = await place.demo(['--keep'])
    assert.equal(again.code, 1)
    assert.match(again.stderr, /--down/)
  } finally {
    assert.equal((await place.demo(['--down'])).code, 0)
  }
  assert.equal((await place.demo(['--exec', 'server', 'true'])).code, 1)
  await leavesNothing(place)
})

test('demo that is interrupted leaves nothing and says so with exit code 130', async () => {
  using place = createPlace()
  const demo: ChildProcess = spawn(run, ['demo'], { env: place.env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  demo.stdout?.on('data', (part: Buffer) => {
    output += part.toString()
  })
  await eventually('the platform starts', () => assert.match(output, /server# faas up/), {
    timeoutMs: 60_000,
  })
  demo.kill('SIGINT')
  const [code] = (await once(demo, 'exit')) as [number | null]
  assert.equal(code, 130)
  await leavesNothing(place)
})

/** No file in the temporary directory, no process and no cgroup that bears its labs' names. */
async function leavesNothing(place: Place): Promise<void> {
  assert.deepEqual(readdirSync(place.directory), [])
  const { stdout } = await exec('pgrep', ['--full', '--list-full', `${place.directory}/faasd-lab-`], {
    okCodes: [0, 1],
  })
  assert.equal(stdout, '')
}
