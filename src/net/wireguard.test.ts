import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseIpv6 } from '../values/ipv6.ts'
import { decodeKey, generatePrivateKey, publicKeyOf } from './keys.ts'
import { renderPeerChanges } from './wireguard.ts'
import { parseDump, type WireguardPeer } from './wireguard-dump.ts'
import { ensureServerFiles, parseServerConfig, renderServerConfig } from './wireguard-files.ts'

async function temporaryDirectory() {
  const path = await mkdtemp(join(tmpdir(), 'faasd-wireguard-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

const modeOf = async (path: string) => (await stat(path)).mode & 0o777

test('publicKeyOf() says what `wg pubkey` says, also for a key that is not clamped', () => {
  assert.equal(
    publicKeyOf('AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA='),
    'B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=',
  )
  assert.throws(() => publicKeyOf('oops'), TypeError)
})

test('generatePrivateKey() makes clamped keys, and no two alike', () => {
  const keys = Array.from({ length: 20 }, generatePrivateKey)
  assert.equal(new Set(keys).size, 20)
  for (const key of keys) {
    const bytes = decodeKey(key)
    assert.equal((bytes?.[0] ?? 1) & 7, 0)
    assert.equal((bytes?.[31] ?? 0) & 0xc0, 0x40)
  }
})

test('decodeKey() takes 32 bytes in canonical base64 and nothing else', () => {
  const key = generatePrivateKey()
  for (const bad of ['', 'x', key.slice(0, -1), `${key}=`, ` ${key}`, `${key}\n`, key.replace(/.=$/, '')])
    assert.equal(decodeKey(bad), undefined)
})

test("renderServerConfig() is the guide's file without ip6tables", () => {
  assert.equal(
    renderServerConfig({ privateKey: 'KEY', listenPort: 51820, directory: '/etc/wireguard' }),
    `# Written by faasd, which may write it anew. Remove this line to keep the file as your own.
[Interface]
Address = fd00:faa5:0:100::1/64
ListenPort = 51820
PrivateKey = KEY

# IPv6 forwarding. What may pass is decided by the nftables table "inet faasd", so no ip6tables rules are needed here.
PostUp = sysctl -w net.ipv6.conf.all.forwarding=1

# Peer configs are in /etc/wireguard/peers/*.conf; faasd applies them to the running link.
`,
  )
})

test('parseServerConfig() reads the interface section only, in any case and with comments', () => {
  const text =
    '[interface]\naddress=fd00:faa5:0:100::1/64, 10.0.0.1/24 # both\nPRIVATEKEY = K=\n[Peer]\nPrivateKey = other\n'
  assert.deepEqual(parseServerConfig(text), {
    ours: false,
    privateKey: 'K=',
    addresses: ['fd00:faa5:0:100::1/64', '10.0.0.1/24'],
  })
})

test('ensureServerFiles() makes all files once and keeps them', async () => {
  await using directory = await temporaryDirectory()
  const first = await ensureServerFiles({ directory: directory.path })
  const privateKey = (await readFile(join(directory.path, 'server_private.key'), 'utf8')).trim()
  assert.equal(publicKeyOf(privateKey), first.publicKey)
  assert.equal((await readFile(join(directory.path, 'server_public.key'), 'utf8')).trim(), first.publicKey)
  assert.ok(first.configIsOurs)
  assert.equal(await modeOf(join(directory.path, 'server_private.key')), 0o600)
  assert.equal(await modeOf(join(directory.path, 'wg0.conf')), 0o600)
  assert.equal(await modeOf(join(directory.path, 'peers')), 0o700)
  const before = await stat(join(directory.path, 'wg0.conf'))
  assert.deepEqual(await ensureServerFiles({ directory: directory.path }), first)
  assert.equal((await stat(join(directory.path, 'wg0.conf'))).ino, before.ino)
  assert.deepEqual((await readdir(directory.path)).sort(), [
    'peers',
    'server_private.key',
    'server_public.key',
    'wg0.conf',
  ])
})

test('ensureServerFiles() rewrites its own configuration after a restored key', async () => {
  await using directory = await temporaryDirectory()
  await ensureServerFiles({ directory: directory.path })
  const restored = generatePrivateKey()
  await writeFile(join(directory.path, 'server_private.key'), restored)
  const { publicKey } = await ensureServerFiles({ directory: directory.path })
  assert.equal(publicKey, publicKeyOf(restored))
  const config = await readFile(join(directory.path, 'wg0.conf'), 'utf8')
  assert.equal(parseServerConfig(config).privateKey, restored)
})

test("ensureServerFiles() adopts the key of a user's configuration and leaves the file as it is", async () => {
  await using directory = await temporaryDirectory()
  const privateKey = generatePrivateKey()
  const config = `[Interface]\nAddress = fd00:faa5:0:0100::1/64\nListenPort = 51820\nPrivateKey = ${privateKey}\nPostUp = true\n`
  await writeFile(join(directory.path, 'wg0.conf'), config)
  assert.deepEqual(await ensureServerFiles({ directory: directory.path }), {
    publicKey: publicKeyOf(privateKey),
    configIsOurs: false,
  })
  assert.equal(await readFile(join(directory.path, 'wg0.conf'), 'utf8'), config)
  assert.equal((await readFile(join(directory.path, 'server_private.key'), 'utf8')).trim(), privateKey)
})

test('ensureServerFiles() refuses what contradicts itself and touches no key', async (t) => {
  const key = generatePrivateKey()
  const ofUser = (address: string, privateKey: string) =>
    `[Interface]\nAddress = ${address}\nPrivateKey = ${privateKey}\n`
  const cases: Record<string, Record<string, string>> = {
    'a damaged private key': { 'server_private.key': 'oops\n' },
    'another network on wg0': { 'wg0.conf': ofUser('10.8.0.1/24', key) },
    'two private keys': {
      'server_private.key': key,
      'wg0.conf': ofUser('fd00:faa5:0:100::1/64', generatePrivateKey()),
    },
    'a configuration without a usable key': { 'wg0.conf': ofUser('fd00:faa5:0:100::1/64', 'oops') },
  }
  for (const [name, files] of Object.entries(cases)) {
    await t.test(name, async () => {
      await using directory = await temporaryDirectory()
      for (const [file, text] of Object.entries(files)) await writeFile(join(directory.path, file), text)
      await assert.rejects(ensureServerFiles({ directory: directory.path }), {
        code: 'WIREGUARD_CONFIG_REFUSED',
      })
      for (const [file, text] of Object.entries(files)) {
        assert.equal(await readFile(join(directory.path, file), 'utf8'), text)
      }
      assert.deepEqual(
        (await readdir(directory.path)).filter((file) => file !== 'peers').sort(),
        Object.keys(files).sort(),
      )
    })
  }
})

test('parseDump() reads what is known of each peer and does not keep secrets', () => {
  const dump = parseDump(
    [
      'SECRET\tSERVER=\t51820\toff',
      'ONE=\tPSK\t[2001:db8::1]:1234\tfd00:faa5:0:100::a/128\t1700000000\t10\t20\t25',
      'TWO=\t(none)\t(none)\t(none)\t0\t0\t0\toff',
      '',
    ].join('\n'),
  )
  assert.deepEqual(dump, {
    publicKey: 'SERVER=',
    listenPort: 51820,
    peers: [
      {
        publicKey: 'ONE=',
        endpoint: '[2001:db8::1]:1234',
        allowedIps: ['fd00:faa5:0:100::a/128'],
        latestHandshakeSeconds: 1700000000,
        receivedBytes: 10,
        sentBytes: 20,
      },
      {
        publicKey: 'TWO=',
        endpoint: undefined,
        allowedIps: [],
        latestHandshakeSeconds: undefined,
        receivedBytes: 0,
        sentBytes: 0,
      },
    ],
  })
  assert.doesNotMatch(JSON.stringify(dump), /SECRET|PSK/)
  assert.throws(() => parseDump('Unable to access interface'), TypeError)
})

test('renderPeerChanges() names only what differs, removals first', () => {
  const present = (publicKey: string, ...allowedIps: string[]): WireguardPeer => ({
    publicKey,
    endpoint: '192.0.2.1:1',
    allowedIps,
    latestHandshakeSeconds: 1,
    receivedBytes: 0,
    sentBytes: 0,
  })
  const wanted = (publicKey: string, address: string, endpoint?: string) => ({
    publicKey,
    address: parseIpv6(address),
    endpoint,
  })
  assert.deepEqual(
    renderPeerChanges(
      [
        present('SAME=', 'fd00:faa5:0:100::a/128'),
        present('GONE=', 'fd00:faa5:0:100::b/128'),
        present('WIDER=', 'fd00:faa5:0:100::c/128', '::/0'),
      ],
      [
        wanted('SAME=', 'fd00:faa5:0:100::a', '192.0.2.9:9'),
        wanted('WIDER=', 'fd00:faa5:0:100::c', '192.0.2.9:9'),
        wanted('NEW=', 'fd00:faa5:0:100::b'),
        wanted('BACK=', 'fd00:faa5:0:100::d', '192.0.2.9:9'),
      ],
    ),
    [
      ['peer', 'GONE=', 'remove'],
      ['peer', 'WIDER=', 'allowed-ips', 'fd00:faa5:0:100::c/128'],
      ['peer', 'NEW=', 'allowed-ips', 'fd00:faa5:0:100::b/128'],
      ['peer', 'BACK=', 'endpoint', '192.0.2.9:9', 'allowed-ips', 'fd00:faa5:0:100::d/128'],
    ],
  )
})
