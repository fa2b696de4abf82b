import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import type { Client } from '../../api/client.ts'
import { systemClock } from '../../host/clock.ts'
import { encodeCode } from '../../peers/code.ts'
import { createDeviceFiles } from '../../peers/device/config.ts'
import { generateKeyPair } from '../../peers/keys.ts'
import { parseIpv6 } from '../../values/ipv6.ts'
import { parsePeerName } from '../../values/names.ts'
import { runCli } from '../run.ts'
import { nameOfMachine } from './connect.ts'
import { vpnCommand } from './vpn.ts'

const code = encodeCode({
  name: parsePeerName('laptop'),
  endpoint: { host: '203.0.113.1', port: 51820 },
  serverPublicKey: generateKeyPair().publicKey,
  oneTimePrivateKey: generateKeyPair().privateKey,
  address: parseIpv6('fd00:faa5:0:200::a'),
  expires: new Date('2026-03-01T11:00:00Z'),
})
const answers: Record<string, unknown> = {
  vpnInvite: { code, expires: '2026-03-01T11:00:00.000Z', warning: 'the endpoint was guessed' },
  vpnCreate: { ipv6: 'fd00:faa5:0:100::b', server_public_key: 'SERVERKEY=', endpoint: '203.0.113.1:51820' },
  vpnList: [
    { name: 'laptop', ipv6: 'fd00:faa5:0:100::a', created: '2026-03-01T10:00:00.000Z', status: 'idle' },
  ],
  vpnRemove: { name: 'laptop' },
}

class Collector extends Writable {
  text = ''
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString()
    done()
  }
}

/** Runs `faas vpn …` with an API that answers from the table above and a machine that has no programs. */
async function runVpn(
  context: TestContext,
  words: readonly string[],
  o: { isRoot?: boolean; home?: string } = {},
) {
  const home = o.home ?? (await mkdtemp(join(tmpdir(), 'faasd-cli-')))
  context.after(() => rm(home, { recursive: true, force: true }))
  const called: unknown[] = []
  const stdout = new Collector()
  const stderr = new Collector()
  const client = {
    server: 'a fake',
    call: async (id: string, call: unknown) => {
      called.push([id, call])
      return answers[id]
    },
  } as unknown as Client
  const cli = {
    stdin: new PassThrough(),
    stdout,
    stderr,
    env: { HOME: home },
    version: '0',
    createClient: () => client,
    signal: new AbortController().signal,
  }
  const vpn = vpnCommand(cli, {
    exec: async (command) => assert.fail(`${command} was run`),
    clock: systemClock,
    isRoot: o.isRoot ?? false,
    hostname: 'box',
  })
  const exit = await runCli(['vpn', ...words], {
    context: cli,
    createTransport: () => assert.fail('connected'),
    more: [vpn],
  })
  return { exit, stdout: stdout.text, stderr: stderr.text, called, home }
}

test('vpn invite prints the code alone to stdout, and what to do with it to stderr', async (context) => {
  const { exit, stdout, stderr } = await runVpn(context, ['invite', 'laptop'])
  assert.equal(exit, 0)
  assert.equal(stdout, `${code}\n`)
  assert.match(stderr, /the endpoint was guessed/)
  assert.match(stderr, /faas vpn connect CODE/)
  assert.match(stderr, /until 2026-03-01T11:00:00\.000Z; the device connects to 203\.0\.113\.1:51820/)
})

test('vpn invite --qr adds a QR code, and --json keeps stdout to JSON', async (context) => {
  assert.match((await runVpn(context, ['invite', 'laptop', '--qr'])).stdout, /[▀▄█]{20}/)
  const { stdout } = await runVpn(context, ['invite', 'laptop', '--json'])
  assert.deepEqual(JSON.parse(stdout), {
    name: 'laptop',
    code,
    expires: '2026-03-01T11:00:00.000Z',
    endpoint: '203.0.113.1:51820',
    warning: 'the endpoint was guessed',
  })
})

test('vpn add prints a configuration without a private key', async (context) => {
  const { stdout, called } = await runVpn(context, ['add', 'phone', '--public-key', 'KEY='])
  assert.deepEqual(called, [['vpnCreate', { body: { name: 'phone', public_key: 'KEY=' } }]])
  assert.equal(
    stdout,
    `[Interface]
# PrivateKey = (the device's own; it never leaves the device)
Address = fd00:faa5:0:100::b/128
DNS = fd00:faa5:0:100::1

[Peer]
PublicKey = SERVERKEY=
AllowedIPs = fd00:faa5::/32
Endpoint = 203.0.113.1:51820
PersistentKeepalive = 25
`,
  )
})

test('vpn list and vpn remove speak to the server', async (context) => {
  const { stdout } = await runVpn(context, ['list'])
  assert.match(stdout, /^NAME .*\nlaptop +fd00:faa5:0:100::a +idle /)
  assert.deepEqual((await runVpn(context, ['rm', 'laptop'])).called, [['vpnRemove', { name: 'laptop' }]])
})

test('vpn list --local and vpn remove --local speak to nobody and show no key', async (context) => {
  const home = await mkdtemp(join(tmpdir(), 'faasd-cli-'))
  const privateKey = generateKeyPair().privateKey
  await createDeviceFiles(join(home, '.config', 'faas')).write({
    version: 1,
    name: parsePeerName('laptop'),
    private_key: privateKey,
    address: parseIpv6('fd00:faa5:0:100::a'),
    server_public_key: generateKeyPair().publicKey,
    endpoint: '203.0.113.1:51820',
    created: '2026-03-01T10:00:00.000Z',
  })
  const listed = await runVpn(context, ['list', '--local', '--json'], { home })
  assert.equal(JSON.parse(listed.stdout)[0].ipv6, 'fd00:faa5:0:100::a')
  assert.ok(!listed.stdout.includes(privateKey))
  const removed = await runVpn(context, ['remove', 'laptop', '--local'], { home })
  assert.deepEqual([removed.exit, removed.called], [0, []])
  assert.equal((await runVpn(context, ['remove', 'laptop', '--local'], { home })).exit, 3)
})

test('vpn connect needs root and a whole code before it does anything', async (context) => {
  const unprivileged = await runVpn(context, ['connect', code])
  assert.equal(unprivileged.exit, 4)
  assert.match(unprivileged.stderr, /NOT_ROOT[^]*sudo/)
  const cut = await runVpn(context, ['connect', code.slice(0, -9)], { isRoot: true })
  assert.equal(cut.exit, 2)
  assert.match(cut.stderr, /INVITATION_CODE_INVALID/)
})

test('nameOfMachine() makes a label of any host name', () => {
  const cases = [
    ['Box.example.com', 'box'],
    ['my_laptop', 'my-laptop'],
    ['-x-', 'x'],
    ['', 'device'],
    ['a'.repeat(80), 'a'.repeat(63)],
  ] as const
  for (const [hostname, name] of cases) assert.equal(nameOfMachine(hostname), name)
})
