/** Devices join a server, each a machine of its own, by real WireGuard, CoreDNS, nftables and the `faas` program. Needs root. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import type { ExecResult } from '../../src/host/exec.ts'
import { decodeCode } from '../../src/peers/code.ts'
import { renderLinkConfig } from '../../src/peers/device/link.ts'
import { generateKeyPair } from '../../src/peers/keys.ts'
import { createLab, type Lab } from '../machines/lab.ts'
import type { Machine, RunningProgram, RunOptions } from '../machines/machine.ts'
import { allowSsh } from '../machines/ssh.ts'
import { missingFor } from '../net/namespace.ts'

const skip = missingFor(['ip', 'wg', 'wg-quick', 'nft', 'curl', 'unshare', 'nsenter'])
const checkout = join(import.meta.dirname, '../..')
const main = join(checkout, 'src/cli/main.ts')

let lab: Lab
let server: RunningProgram

async function startServer(): Promise<RunningProgram> {
  const program = lab.server.spawn([process.execPath, join(import.meta.dirname, 'server.ts')], {
    env: { FAAS_VPN_ENDPOINT: lab.server.ipv4 },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  await answered(program, 'ready')
  return program
}

const answered = (program: RunningProgram, line: string) =>
  eventually(
    `the server says ${line}`,
    () => assert.ok(program.output().split('\n').includes(line), program.output()),
    { timeoutMs: 30_000 },
  )

/** Runs `faas` in a machine; any exit code is handed on. */
const faas = (machine: Machine, words: readonly string[], options: RunOptions = {}): Promise<ExecResult> =>
  machine.exec([process.execPath, main, ...words], {
    okCodes: [0, 1, 2, 3, 4, 5, 130],
    timeoutMs: 60_000,
    ...options,
  })

async function invite(name: string): Promise<string> {
  const { stdout, stderr, code } = await faas(lab.server, ['vpn', 'invite', name])
  assert.equal(code, 0, stderr)
  return stdout.trim()
}

const peersOf = async () => (await lab.server.sh('wg show wg0 allowed-ips')).trim().split('\n').sort()
const hasLink = async (machine: Machine) =>
  (await machine.exec(['ip', 'link', 'show', 'wg-faas'], { okCodes: [0, 1] })).code === 0

async function assertNothingLeft(machine: Machine): Promise<void> {
  assert.equal(await hasLink(machine), false)
  assert.equal(await machine.sh('ip -6 route show table all | grep fd00:faa5 || true'), '')
  assert.doesNotMatch(await machine.sh('cat /etc/resolv.conf'), /fd00:faa5/)
  assert.equal(await machine.sh('ls /var/run/wireguard 2>/dev/null || true'), '')
  await eventually('wireguard-go has ended', async () =>
    assert.equal(await machine.sh('pgrep -lx wireguard-go || true'), ''),
  )
  assert.ok(!existsSync(join(machine.directory, 'home/.config/faas/connected.json')))
}

if (skip !== undefined) {
  test('devices join a server', { skip }, () => {})
} else {
  before(async () => {
    lab = await createLab({ devices: 2 })
    server = await startServer()
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    await lab?.[Symbol.asyncDispose]()
  })

  test('a device joins with a code through the one UDP port, and calls a function by name', async () => {
    const code = await invite('laptop')
    assert.deepEqual(
      (await peersOf()).map((line) => line.split('\t')[1]),
      ['fd00:faa5:0:200::a/128'],
    )
    const { stdout, stderr, code: exit } = await faas(lab.device, ['vpn', 'connect', code])
    assert.equal(exit, 0, stdout + stderr)
    const lines = stdout.trim().split('\n')
    const steps = [
      '- Generates keypair',
      '- Registers with server',
      '- Configures wg-faas interface',
      '- Tests connectivity',
    ]
    assert.deepEqual(
      lines.filter((line) => line.startsWith('- ')).map((line) => line.split(':')[0]),
      steps,
    )
    assert.equal(lines.at(-1), '✅ Connected!')
    assert.match(stdout, /laptop is fd00:faa5:0:100::a\n/)
    assert.match(stdout, /DNS ns\.faas AAAA: fd00:faa5:0:100::1\n/)
    assert.match(stdout, /names under faas\. resolve on this machine\n/)
    assert.match(stdout, /HTTP http:\/\/hello\.faas\/: 200 in /)
    assert.equal(await lab.device.sh('curl -sS --max-time 10 http://hello.faas/'), 'hello\n')
  })

  test("the device's key is on the device alone, and only its owner can read it", async () => {
    const directory = join(lab.device.directory, 'home/.config/faas/vpn')
    assert.deepEqual(await readdir(directory), ['laptop.json'])
    assert.equal((await stat(directory)).mode & 0o777, 0o700)
    assert.equal((await stat(join(directory, 'laptop.json'))).mode & 0o777, 0o600)
    const { private_key } = JSON.parse(await readFile(join(directory, 'laptop.json'), 'utf8'))
    assert.match(private_key, /^.{43}=$/)
    const everything = await lab.server.sh('cat /etc/wireguard/peers/* /var/lib/faasd/invitations.json')
    assert.ok(!everything.includes(private_key))
    assert.equal(
      (
        await lab.server.sh('stat -c %a /etc/wireguard/peers/laptop.conf /var/lib/faasd/invitations.json')
      ).trim(),
      '600\n600',
    )
  })

  test('the one-time key is gone once the device has its own; the peer is listed as connected', async () => {
    await eventually('one peer is left', async () =>
      assert.deepEqual(
        (await peersOf()).map((line) => line.split('\t')[1]),
        ['fd00:faa5:0:100::a/128'],
      ),
    )
    const { stdout } = await faas(lab.server, ['vpn', 'list', '--json'])
    const [peer] = JSON.parse(stdout)
    assert.deepEqual(
      { ...peer, created: '' },
      { name: 'laptop', ipv6: 'fd00:faa5:0:100::a', created: '', status: 'connected' },
    )
    const status = JSON.parse((await faas(lab.device, ['vpn', 'status', '--json'])).stdout)
    assert.equal(status.connected, true)
    assert.equal(status.ipv6, 'fd00:faa5:0:100::a')
    assert.equal(status.endpoint, `${lab.server.ipv4}:51820`)
  })

  test('a device reaches DNS and functions, and nothing else of the server', async () => {
    const reach = (target: string) =>
      lab.device.sh(`curl -sS --max-time 1 'http://${target}/' || true`, { timeoutMs: 10_000 })
    assert.equal(await reach('[fd00:faa5:1::a]:80'), 'hello\n')
    for (const target of [
      '[fd00:faa5:0:100::1]:8080',
      '[fd00:faa5:1::a]:8080',
      '[fd00:faa5:0:100::1]:51821',
    ]) {
      assert.equal(await reach(target), '', target)
    }
  })

  test('disconnect leaves nothing of the connection, and connect brings back the same key and address', async () => {
    const key = await lab.device.sh('wg show wg-faas public-key')
    const disconnected = await faas(lab.device, ['vpn', 'disconnect'])
    assert.equal(disconnected.code, 0, disconnected.stderr)
    await assertNothingLeft(lab.device)
    assert.equal((await faas(lab.device, ['vpn', 'disconnect'])).code, 0)
    assert.equal((await faas(lab.device, ['vpn', 'status'])).code, 1)
    const again = await faas(lab.device, ['vpn', 'connect', '--json'])
    assert.equal(again.code, 0, again.stderr)
    assert.equal(JSON.parse(again.stdout).ipv6, 'fd00:faa5:0:100::a')
    assert.equal(await lab.device.sh('wg show wg-faas public-key'), key)
  })

  test('a connection whose wireguard-go was killed is told as gone, and connect heals it', async (context) => {
    if ((await lab.device.exec(['pgrep', '-x', 'wireguard-go'], { okCodes: [0, 1] })).code === 1) {
      return context.skip('the kernel has WireGuard: there is no wireguard-go to kill')
    }
    await lab.device.sh('pkill -KILL -x wireguard-go')
    await eventually('the link is gone', async () => assert.equal(await hasLink(lab.device), false))
    const status = await faas(lab.device, ['vpn', 'status'])
    assert.equal(status.code, 1)
    assert.match(status.stderr, /the connection as laptop is gone/)
    const healed = await faas(lab.device, ['vpn', 'connect'])
    assert.equal(healed.code, 0, healed.stderr)
    assert.equal(await lab.device.sh('curl -sS --max-time 10 http://hello.faas/'), 'hello\n')
  })

  test('quarantine reaches the join service and nothing else, and the first key binds', async () => {
    const [, second] = lab.devices
    assert.ok(second)
    const code = decodeCode(await invite('tablet'))
    const config = renderLinkConfig({
      privateKey: code.oneTimePrivateKey,
      address: code.address,
      serverPublicKey: code.serverPublicKey,
      endpoint: code.endpoint,
    })
    await second.sh(
      `ip link add wgq type wireguard 2>/dev/null || wireguard-go wgq 2>/dev/null
      (umask 077; cat >~/q.conf); wg setconf wgq ~/q.conf; rm ~/q.conf
      ip -6 addr add ${code.address}/128 dev wgq nodad; ip link set wgq up; ip -6 route add fd00:faa5::/32 dev wgq`,
      { input: config },
    )
    try {
      const curl = (words: string) =>
        second.sh(`curl -sS --max-time 1 ${words} 2>&1 || true`, { timeoutMs: 15_000 })
      const ask = (key: string) =>
        curl(`-d '{"public_key":"${key}"}' 'http://[fd00:faa5:0:100::1]:51821/join'`)
      await eventually('the join service answers', async () =>
        assert.match(await ask('x'), /PEER_KEY_INVALID/),
      )
      for (const target of ['[fd00:faa5:1::a]:80', '[fd00:faa5:0:100::1]:8080', '[fd00:faa5:0:100::1]:53']) {
        assert.match(await curl(`'http://${target}/'`), /^curl: /, target)
      }
      assert.match(
        await second.sh('dig +tries=1 +time=1 ns.faas AAAA @fd00:faa5:0:100::1 || true'),
        /timed out|no servers/,
      )
      const { publicKey } = generateKeyPair()
      const answer = await ask(publicKey)
      assert.equal(JSON.parse(answer).name, 'tablet')
      assert.equal(await ask(publicKey), answer)
      assert.match(await ask(generateKeyPair().publicKey), /INVITATION_INVALID/)
    } finally {
      await second.sh('ip link delete wgq')
    }
    assert.equal((await faas(lab.server, ['vpn', 'rm', 'tablet'])).code, 0)
    await eventually('quarantine is closed', async () => assert.equal((await peersOf()).length, 1))
  })

  test('an invitation outlives a restart of the server and a wg0 made anew', async () => {
    const [, second] = lab.devices
    assert.ok(second)
    const code = await invite('phone')
    server.kill('SIGKILL')
    await server.exited
    await lab.server.sh('pkill -KILL coredns || true; ip link delete wg0')
    server = await startServer()
    // The other device did nothing: the server, which remembers where it was, has spoken first.
    assert.equal(await lab.device.sh('curl -sS --max-time 10 http://hello.faas/'), 'hello\n')
    server.child.stdin?.write('remake\n')
    await answered(server, 'remade')
    const { stdout, stderr, code: exit } = await faas(second, ['vpn', 'connect', '-'], { input: code })
    assert.equal(exit, 0, stdout + stderr)
    assert.match(stdout, /phone is fd00:faa5:0:100::b\n/)
    assert.equal(await lab.device.sh('curl -sS --max-time 10 http://hello.faas/'), 'hello\n')
  })

  test('devices do not reach each other', async () => {
    const [first, second] = lab.devices
    assert.ok(first && second)
    await using listener = second.spawn([
      process.execPath,
      '-e',
      "require('http').createServer((_, r) => r.end('reached')).listen(8000, '::', () => console.log('up'))",
    ])
    await eventually('it listens', () => assert.match(listener.output(), /up/))
    const answer = await first.sh("curl -sS --max-time 1 'http://[fd00:faa5:0:100::b]:8000/' 2>&1 || true")
    assert.match(answer, /^curl: /)
  })

  test('a removed device is cut off at once', async () => {
    const [, second] = lab.devices
    assert.ok(second)
    assert.equal((await faas(lab.server, ['vpn', 'remove', 'phone'])).code, 0)
    assert.equal((await peersOf()).length, 1)
    assert.match(await second.sh("curl -sS --max-time 1 'http://[fd00:faa5:1::a]/' 2>&1 || true"), /^curl: /)
    assert.equal((await faas(second, ['vpn', 'disconnect'])).code, 0)
    await assertNothingLeft(second)
  })

  test('Ctrl-C half-way leaves nothing on the device', async () => {
    const [, second] = lab.devices
    assert.ok(second)
    const code = await invite('stopped')
    assert.equal((await faas(lab.server, ['vpn', 'rm', 'stopped'])).code, 0)
    await using connect = second.spawn([process.execPath, main, 'vpn', 'connect', code])
    await eventually('the link is being tried', async () => assert.ok(await hasLink(second)))
    connect.kill('SIGINT')
    assert.equal(await connect.exited, 130)
    await assertNothingLeft(second)
  })

  test('a connected device refuses another code, and stays connected', async () => {
    const { stderr, code } = await faas(lab.device, ['vpn', 'connect', await invite('again')])
    assert.equal(code, 1)
    assert.match(stderr, /connected already, as laptop.*VPN_CONNECTED/)
    assert.equal((await faas(lab.device, ['vpn', 'status'])).code, 0)
    assert.equal((await faas(lab.server, ['vpn', 'rm', 'again'])).code, 0)
  })

  test('an unknown key is met with silence: the hint tells a used code and a server that was installed anew', async () => {
    const [, second] = lab.devices
    assert.ok(second)
    const used = await invite('once')
    assert.equal((await faas(lab.server, ['vpn', 'rm', 'once'])).code, 0)
    const directory = join(lab.device.directory, 'home/.config/faas/vpn')
    const member = JSON.parse(await readFile(join(directory, 'laptop.json'), 'utf8'))
    const stranger = { ...member, name: 'stranger', server_public_key: generateKeyPair().publicKey }
    await lab.device.sh('umask 077; cat >~/.config/faas/vpn/stranger.json', {
      input: JSON.stringify(stranger),
    })
    const [byCode, byName] = await Promise.all([
      faas(second, ['vpn', 'connect', used]),
      faas(lab.device, ['vpn', 'connect', 'stranger']),
    ])
    assert.equal(byCode.code, 5)
    assert.match(
      byCode.stderr,
      /no answer from .*:51820 by UDP: .*the code was used or withdrawn.*VPN_UNREACHABLE/,
    )
    assert.match(byCode.stderr, /A code works once/)
    assert.equal(byName.code, 5)
    assert.match(byName.stderr, /does not know this device any more.*VPN_UNREACHABLE/)
    assert.match(byName.stderr, /installed anew .* join again: faas vpn connect CODE/)
    await assertNothingLeft(second)
    await assertNothingLeft(lab.device)
    assert.equal((await faas(lab.device, ['vpn', 'rm', 'stranger', '--local'])).code, 0)
  })

  test('B72, B73, B74: bad names, bad keys and unknown peers are refused, and nothing is written', async () => {
    const files = () => lab.server.sh('ls /etc/wireguard/peers; cat /etc/wireguard/peers/*')
    const before = await files()
    const { publicKey } = generateKeyPair()
    const serverKey = (await lab.server.sh('cat /etc/wireguard/server_public.key')).trim()
    const laptopKey = (
      await lab.server.sh('sed -n s/^PublicKey.=.//p /etc/wireguard/peers/laptop.conf')
    ).trim()
    const cases: [string, string, number, RegExp][] = [
      ['../../cron.d/x', publicKey, 2, /NAME_INVALID/],
      ['x\n[Interface]\nPostUp=touch /tmp/owned', publicKey, 2, /NAME_INVALID/],
      ['x', 'abc', 1, /PEER_KEY_INVALID/],
      ['x', Buffer.alloc(32).toString('base64'), 1, /PEER_KEY_INVALID/],
      ['x', serverKey, 1, /PEER_KEY_TAKEN/],
      ['x', laptopKey, 1, /PEER_KEY_TAKEN/],
      ['laptop', publicKey, 1, /PEER_EXISTS/],
    ]
    for (const [name, key, code, message] of cases) {
      const refused = await faas(lab.server, ['vpn', 'add', name, '--public-key', key])
      assert.equal(refused.code, code, JSON.stringify([name, key, refused]))
      assert.match(refused.stderr, message)
    }
    const unknown = await faas(lab.server, ['vpn', 'remove', 'nobody'])
    assert.equal(unknown.code, 3)
    assert.match(unknown.stderr, /PEER_UNKNOWN/)
    assert.equal(await files(), before)
  })

  test('with ssh to the server a device needs no code, and administers the server', async (context) => {
    const [, second] = lab.devices
    assert.ok(second)
    if (missingFor(['sshd', 'ssh', 'ssh-keygen'])) return context.skip('requires sshd and ssh')
    await allowSsh(second, lab.server)
    const env = { FAAS_HOST: `ssh://root@${lab.server.ipv4}` }
    const { stdout, stderr, code } = await faas(second, ['vpn', 'connect', 'desk'], { env })
    assert.equal(code, 0, stdout + stderr)
    assert.equal(await second.sh('curl -sS --max-time 10 http://hello.faas/'), 'hello\n')
    const listed = await faas(second, ['vpn', 'list', '--json'], { env })
    assert.deepEqual(
      JSON.parse(listed.stdout).map(({ name }: { name: string }) => name),
      ['desk', 'laptop'],
    )
    assert.equal((await faas(second, ['vpn', 'disconnect'])).code, 0)
    assert.equal((await faas(second, ['vpn', 'remove', 'desk'], { env })).code, 0)
    assert.equal((await faas(second, ['vpn', 'remove', 'desk', '--local'])).code, 0)
  })

  test('the server itself connects without a code, and its functions answer by name', async () => {
    const { stdout, stderr, code } = await faas(lab.server, [
      'vpn',
      'connect',
      'server',
      '--write-resolv-conf',
    ])
    assert.equal(code, 0, stdout + stderr)
    assert.equal(stdout.trim().split('\n').at(-1), '✅ Connected!')
    assert.equal(await lab.server.sh('curl -sS --max-time 10 http://hello.faas/'), 'hello\n')
    assert.equal((await faas(lab.server, ['vpn', 'disconnect'])).code, 0)
    assert.equal(await lab.server.sh('cat /etc/resolv.conf'), '# no resolver\n')
    assert.equal(await hasLink(lab.server), false)
  })

  test('without resolvectl and resolvconf the device says what to write, or writes it and puts it back', async () => {
    const [, second] = lab.devices
    assert.ok(second)
    await second.sh('rm -f /usr/sbin/resolvconf')
    const instructed = await faas(second, ['vpn', 'connect', await invite('plain')])
    assert.equal(instructed.code, 0, instructed.stderr)
    assert.match(instructed.stdout, /do not resolve on this machine yet/)
    assert.match(instructed.stdout, /nameserver fd00:faa5:0:100::1\n/)
    assert.equal(await second.sh('cat /etc/resolv.conf'), '# no resolver\n')
    const written = await faas(second, ['vpn', 'connect', '--write-resolv-conf'])
    assert.equal(written.code, 0, written.stderr)
    assert.match(written.stdout, /names under faas\. resolve on this machine/)
    assert.equal(await second.sh('curl -sS --max-time 10 http://hello.faas/'), 'hello\n')
    assert.equal((await faas(second, ['vpn', 'disconnect'])).code, 0)
    assert.equal(await second.sh('cat /etc/resolv.conf; ls /etc | grep faas || true'), '# no resolver\n')
    await assertNothingLeft(second)
  })
}
