/** A real WireGuard link by wg-quick: the kernel's, or wireguard-go where the kernel has none. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { exec } from '../../src/host/exec.ts'
import { generatePrivateKey, publicKeyOf } from '../../src/net/keys.ts'
import { createLinks } from '../../src/net/links.ts'
import { createWireguard } from '../../src/net/wireguard.ts'
import { ensureServerFiles } from '../../src/net/wireguard-files.ts'
import { parseIpv6 } from '../../src/values/ipv6.ts'
import { enterNamespaces, missingFor } from './namespace.ts'

/** Whether the kernel makes WireGuard links; a link made for the answer is gone again. */
const kernelHasWireguard = () =>
  exec('ip', ['link', 'add', 'wgtest', 'type', 'wireguard']).then(
    () => exec('ip', ['link', 'delete', 'wgtest']).then(() => true),
    () => false,
  )

if (enterNamespaces(import.meta.filename, ['wg', 'wg-quick', 'sysctl'])) {
  const kernel = await kernelHasWireguard()
  const skip = (kernel ? undefined : missingFor(['wireguard-go'])) ?? false
  const directory = await mkdtemp(join(tmpdir(), 'faasd-wireguard-'))
  const wireguard = createWireguard({ exec, directory })
  const links = createLinks({ exec })
  let serverKey = ''

  const peer = (last: string) => {
    const privateKey = generatePrivateKey()
    return { privateKey, publicKey: publicKeyOf(privateKey), address: parseIpv6(`fd00:faa5:0:100::${last}`) }
  }
  const peersNow = async () =>
    (await wireguard.dump()).peers.map(({ publicKey, allowedIps }) => [publicKey, ...allowedIps])
  /** The process that carries a userspace link. */
  const userspacePid = async () => Number((await exec('pgrep', ['-f', '^wireguard-go wg0'])).stdout.trim())

  before(async () => {
    serverKey = (await ensureServerFiles({ directory })).publicKey
  })
  after(async () => {
    await wireguard.down()
    await rm(directory, { recursive: true })
  })

  test('up() makes the link of the guide, and leaves a running one as it is', { skip }, async () => {
    assert.equal(await wireguard.exists(), false)
    assert.equal(await wireguard.kind(), undefined)
    await wireguard.up(serverKey)
    assert.equal(await wireguard.exists(), true)
    assert.equal(await wireguard.kind(), kernel ? 'kernel' : 'userspace')
    assert.deepEqual(await wireguard.dump(), { publicKey: serverKey, listenPort: 51820, peers: [] })
    const { stdout } = await exec('ip', ['-6', 'address', 'show', 'dev', 'wg0'])
    assert.match(stdout, /inet6 fd00:faa5:0:100::1\/64/)
    assert.equal((await readFile('/proc/sys/net/ipv6/conf/all/forwarding', 'utf8')).trim(), '1')
    const before = (await exec('ip', ['-j', 'link', 'show', 'dev', 'wg0'])).stdout
    await wireguard.up(serverKey)
    assert.equal((await exec('ip', ['-j', 'link', 'show', 'dev', 'wg0'])).stdout, before)
  })

  test('applyPeers() adds, replaces and removes by differences', { skip }, async () => {
    const [one, two, other] = [peer('a'), peer('b'), peer('b')]
    await wireguard.applyPeers([one, two])
    assert.deepEqual(
      new Map(await peersNow().then((peers) => peers.map(([key, ...ips]) => [key, ips]))),
      new Map([
        [one.publicKey, ['fd00:faa5:0:100::a/128']],
        [two.publicKey, ['fd00:faa5:0:100::b/128']],
      ]),
    )
    await wireguard.applyPeers([one, other])
    assert.deepEqual((await peersNow()).map(([key]) => key).sort(), [one.publicKey, other.publicKey].sort())
    await wireguard.applyPeers([])
    assert.deepEqual(await peersNow(), [])
  })

  test('applyPeers() sets twelve hundred peers, more than one command takes', { skip }, async () => {
    const many = Array.from({ length: 1_200 }, (_, index) => peer((index + 10).toString(16)))
    await wireguard.applyPeers(many)
    assert.equal((await peersNow()).length, 1_200)
    await wireguard.applyPeers(many.slice(0, 1))
    assert.equal((await peersNow()).length, 1)
    await wireguard.applyPeers([])
  })

  test("a device's session survives that other peers come and go, and its key ends with it", {
    skip,
  }, async () => {
    const device = peer('a')
    await wireguard.applyPeers([device])
    await using _device = await startDevice(device.privateKey)
    const ping = () =>
      exec('ip', ['netns', 'exec', 'device', 'ping', '-6', '-c', '1', '-W', '1', 'fd00:faa5:0:100::1'])
    await eventually('the device reaches the server', ping)
    const known = async () =>
      (await wireguard.dump()).peers.find(({ publicKey }) => publicKey === device.publicKey)
    const first = await known()
    assert.ok(first?.latestHandshakeSeconds !== undefined && first.endpoint !== undefined)
    assert.ok(first.receivedBytes > 0 && first.sentBytes > 0)
    await wireguard.applyPeers([device, peer('b'), peer('c')])
    await wireguard.applyPeers([peer('d'), device])
    await ping()
    const second = await known()
    assert.equal(second?.latestHandshakeSeconds, first.latestHandshakeSeconds)
    assert.equal(second?.endpoint, first.endpoint)
    assert.ok((second?.receivedBytes ?? 0) > first.receivedBytes)
    await wireguard.applyPeers([])
    await assert.rejects(ping())
  })

  test('a wireguard-go that was killed is replaced by up(), with the same key', {
    skip: kernel || skip,
  }, async () => {
    process.kill(await userspacePid(), 'SIGKILL')
    await eventually('the link is gone', async () => assert.equal(await wireguard.exists(), false))
    await wireguard.up(serverKey)
    await links.applyAddresses([parseIpv6('fd00:faa5:1::a')])
    assert.equal((await wireguard.dump()).publicKey, serverKey)
  })

  test('a link that was deleted is made again by up()', { skip }, async () => {
    await exec('ip', ['link', 'delete', 'dev', 'wg0'])
    await eventually('the link is gone', async () => assert.equal(await wireguard.exists(), false))
    await wireguard.up(serverKey)
    assert.equal((await wireguard.dump()).publicKey, serverKey)
  })

  test('up() gives the link the key of restored files', { skip }, async () => {
    await rm(join(directory, 'server_private.key'))
    await rm(join(directory, 'wg0.conf'))
    serverKey = (await ensureServerFiles({ directory })).publicKey
    await wireguard.up(serverKey)
    assert.equal((await wireguard.dump()).publicKey, serverKey)
  })

  test('down() removes the link and its socket, and can be repeated', { skip }, async () => {
    await wireguard.down()
    assert.equal(await wireguard.exists(), false)
    await assert.rejects(readFile('/run/wireguard/wg0.sock'), { code: 'ENOENT' })
    await wireguard.down()
  })

  test("up() refuses a link of that name that is somebody else's, and does not touch it", async () => {
    await exec('ip', ['tuntap', 'add', 'wg0', 'mode', 'tun'])
    await assert.rejects(wireguard.up(serverKey), { code: 'WIREGUARD_CONFIG_REFUSED' })
    assert.equal(await wireguard.exists(), true)
    await exec('ip', ['link', 'delete', 'dev', 'wg0'])
  })

  /** A device with its own WireGuard in a namespace of its own, joined to the server by a veth pair. */
  async function startDevice(privateKey: string): Promise<AsyncDisposable> {
    await using stack = new AsyncDisposableStack()
    await exec('ip', ['netns', 'add', 'device'])
    stack.defer(async () => void (await exec('ip', ['netns', 'delete', 'device'])))
    await exec('ip', ['-batch', '-'], {
      input: [
        'link add eth0 type veth peer name eth0 netns device',
        'link set eth0 up',
        'address add 192.0.2.1/24 dev eth0',
      ].join('\n'),
    })
    const inDevice = (...args: string[]) => exec('ip', ['netns', 'exec', 'device', ...args])
    await inDevice('ip', 'link', 'set', 'eth0', 'up')
    await inDevice('ip', 'address', 'add', '192.0.2.2/24', 'dev', 'eth0')
    if (kernel) {
      await inDevice('ip', 'link', 'add', 'wg-faas', 'type', 'wireguard')
    } else {
      const child = spawn('ip', ['netns', 'exec', 'device', 'wireguard-go', '-f', 'wg-faas'], {
        stdio: 'ignore',
      })
      stack.defer(async () => {
        child.kill('SIGKILL')
        await once(child, 'exit')
      })
    }
    const config = join(directory, 'device.conf')
    await writeFile(
      config,
      `[Interface]\nPrivateKey = ${privateKey}\n[Peer]\nPublicKey = ${serverKey}\nEndpoint = 192.0.2.1:51820\nAllowedIPs = fd00:faa5::/32\n`,
    )
    await eventually('the device has a link', () => inDevice('wg', 'setconf', 'wg-faas', config))
    await inDevice('ip', 'address', 'add', 'fd00:faa5:0:100::a/128', 'dev', 'wg-faas', 'nodad')
    await inDevice('ip', 'link', 'set', 'wg-faas', 'up')
    await inDevice('ip', '-6', 'route', 'add', 'fd00:faa5::/32', 'dev', 'wg-faas')
    return stack.move()
  }
}
