/** The whole program as a child process, against a server behind ssh (a stand-in that runs what ssh would run there). */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { testName } from '../../src/api/fake-platform.ts'
import { serve } from './serve.ts'

const program = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

/** An `ssh` that checks how it is called, then runs `faas dial-stdio` on the served socket. */
async function serveBehindSsh(context: TestContext) {
  const served = await serve(context)
  const ssh = join(served.directory, 'ssh')
  await writeFile(
    ssh,
    `#!/bin/sh
[ "$*" = "-T -o ConnectTimeout=15 -- me@server faas dial-stdio" ] || { echo "called with $*" >&2; exit 255; }
FAAS_HOST="unix://${served.socketPath}" exec "${process.execPath}" "${program}" dial-stdio
`,
  )
  await chmod(ssh, 0o755)
  const faas = async (words: readonly string[], { host = 'ssh://me@server', input = '' } = {}) => {
    const env = { ...process.env, PATH: `${served.directory}:${process.env['PATH']}`, FAAS_HOST: host }
    const child = spawn(process.execPath, [program, ...words], { env, stdio: ['pipe', 'pipe', 'pipe'] })
    child.stdin.on('error', () => {}).end(input)
    const [stdout, stderr, code] = await Promise.all([
      textOf(child.stdout),
      textOf(child.stderr),
      new Promise<number | null>((resolve) => child.once('close', resolve)),
    ])
    return { stdout, stderr, code }
  }
  return { ...served, faas }
}

async function textOf(stream: NodeJS.ReadableStream): Promise<string> {
  let text = ''
  for await (const chunk of stream) text += String(chunk)
  return text
}

test('faas deploys and lists through ssh', async (context) => {
  const { faas, platform } = await serveBehindSsh(context)
  const deployed = await faas(['new', 'one', '--json'], { input: 'x'.repeat(300_000) })
  assert.equal(deployed.stderr, '')
  assert.equal((JSON.parse(deployed.stdout) as { ip: string }).ip, 'fd00:faa5:1::a')
  assert.equal(platform.received.get(testName('one')), 300_000)
  assert.match((await faas(['list'])).stdout, /^one +fd00:faa5:1::a/m)
})

test('faas says when ssh fails, and ends with 5', async (context) => {
  const { faas } = await serveBehindSsh(context)
  const { code, stderr } = await faas(['list'], { host: 'ssh://other@server' })
  assert.equal(code, 5)
  assert.match(
    stderr,
    /ssh exited with 255 \(DAEMON_UNREACHABLE\)\nhint: try: ssh other@server faas dial-stdio/,
  )
})
