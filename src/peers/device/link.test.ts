import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Exec } from '../../host/exec.ts'
import { FaasError } from '../../values/errors.ts'
import { parseIpv6 } from '../../values/ipv6.ts'
import { generateKeyPair } from '../keys.ts'
import { createDeviceLink, type LinkConfig, mtuWithin, renderLinkConfig } from './link.ts'

const config: LinkConfig = {
  privateKey: generateKeyPair().privateKey,
  address: parseIpv6('fd00:faa5:0:100::a'),
  serverPublicKey: generateKeyPair().publicKey,
  endpoint: { host: '2001:db8::1', port: 51820 },
}

async function temporary(context: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'faasd-link-'))
  context.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}

test('renderLinkConfig() writes what `wg setconf` reads', () => {
  assert.equal(
    renderLinkConfig(config),
    `[Interface]
PrivateKey = ${config.privateKey}

[Peer]
PublicKey = ${config.serverPublicKey}
AllowedIPs = fd00:faa5::/32
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25
`,
  )
})

test('mtuWithin() leaves room for the tunnel, and never goes below what IPv6 needs', () => {
  const cases = [
    [1500, 1420],
    [1492, 1412],
    [9000, 1420],
    [65_536, 1420],
    [1280, 1280],
  ] as const
  for (const [outer, mtu] of cases) assert.equal(mtuWithin(outer), mtu)
})

test('configure() gives the keys to wg in a 0600 file that is gone afterwards, and never in arguments', async (context) => {
  const privateDirectory = await temporary(context)
  const ran: string[] = []
  let mode = 0
  let content = ''
  const exec: Exec = async (command, args) => {
    ran.push([command, ...args].join(' '))
    if (command === 'wg') {
      const path = args[2] ?? ''
      mode = (await stat(path)).mode & 0o777
      content = await readFile(path, 'utf8')
    }
    if (args.includes('get')) return { stdout: '[{"dev":"ppp0"}]', stderr: '', code: 0 }
    if (args.includes('show')) return { stdout: '[{"mtu":1492}]', stderr: '', code: 0 }
    return { stdout: '', stderr: '', code: 0 }
  }
  const link = createDeviceLink({ exec, privateDirectory, socketDirectory: privateDirectory })
  assert.deepEqual(await link.configure(config), { mtu: 1412 })
  assert.equal(mode, 0o600)
  assert.equal(content, renderLinkConfig(config))
  assert.deepEqual(await readdir(privateDirectory), [])
  assert.ok(!ran.join('\n').includes(config.privateKey))
  assert.deepEqual(
    ran.filter((line) => !line.startsWith('wg')),
    [
      'ip -6 -json route get 2001:db8::1',
      'ip -json link show dev ppp0',
      'ip -6 address flush dev wg-faas scope global',
      'ip -6 address add fd00:faa5:0:100::a/128 dev wg-faas nodad',
      'ip link set dev wg-faas mtu 1412 up',
      'ip -6 route replace fd00:faa5::/32 dev wg-faas',
    ],
  )
})

test('create() takes wireguard-go where the kernel has no WireGuard, and says what to install where neither is', async (context) => {
  const privateDirectory = await temporary(context)
  let code = 0
  const exec: Exec = async (command) => {
    if (command === 'ip')
      throw new FaasError('COMMAND_FAILED', 'ip exited with 2: Error: Unknown device type.')
    return { stdout: '', stderr: '', code }
  }
  const link = createDeviceLink({ exec, privateDirectory })
  assert.equal(await link.create(), 'wireguard-go')
  code = 127
  await assert.rejects(link.create(), { code: 'PROGRAM_MISSING', hint: /apt install wireguard-go/ })
})

test('create() without permission says that root is needed', async (context) => {
  const privateDirectory = await temporary(context)
  const exec: Exec = async () => {
    throw new FaasError('COMMAND_FAILED', 'ip exited with 2: RTNETLINK answers: Operation not permitted')
  }
  await assert.rejects(createDeviceLink({ exec, privateDirectory }).create(), { code: 'NOT_ROOT' })
})
