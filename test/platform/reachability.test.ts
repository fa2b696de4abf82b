/**
 * What of the server and of the network can be reached, from a device in the tunnel, from a device beside it and from local users:
 * exactly what is listed here answers.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import type { Machine } from '../machines/machine.ts'
import { actionsImage } from './images.ts'
import { skipReason, startPlatform } from './platform.ts'
import { startWitnesses } from './witnesses.ts'

const dnsServer = 'fd00:faa5:0:100::1'
const witnessPort = 8090
const ports = [
  1, 21, 22, 23, 25, 53, 80, 81, 110, 111, 123, 139, 143, 389, 443, 445, 631, 853, 993, 1080, 2049, 2375,
  3306, 5353, 5432, 6379,
].concat([8000, 8080, 8443, 9090, 9100, 9153, 9253, 10250, witnessPort, 51820, 51821])
const nobody = 65534

/** Runs test/net/reach.ts in a machine: what becomes of each target. */
async function reach(
  machine: Machine,
  targets: readonly string[],
  options: { uid?: number } = {},
): Promise<readonly string[]> {
  const program = ['node', new URL('../net/reach.ts', import.meta.url).pathname]
  const user = options.uid === undefined ? [] : [`--uid=${options.uid}`]
  return JSON.parse((await machine.exec([...program, ...user, ...targets])).stdout) as string[]
}

/** Answers that come late count as silence: what must answer is given more than one chance. */
const onBusyMachines = (check: () => Promise<void>) => eventually('answers', check, { timeoutMs: 15_000 })

/** The ports of an address that answer, and what the others do. */
async function scan(
  machine: Machine,
  address: string,
  source = '',
): Promise<{ open: number[]; others: string[] }> {
  const results = await reach(
    machine,
    ports.map((port) => `tcp,${address},${port},${source}`),
  )
  return {
    open: ports.filter((_, index) => results[index] === 'answer'),
    others: [...new Set(results.filter((result) => result !== 'answer'))].sort(),
  }
}

test('peers reach DNS and functions, others nothing, local users no function', {
  skip: skipReason('runc'),
}, async (t) => {
  await using platform = await startPlatform({ runtime: 'runc', devices: 3 })
  const { server } = platform
  const [device, phone, stranger] = platform.lab.devices
  assert.ok(device && phone && stranger)
  const step = (name: string, body: (t: TestContext) => Promise<void>) => platform.step(t, name, body)
  const peer = await platform.join(device, 'laptop')
  const otherPeer = await platform.join(phone, 'phone')
  const host = await platform.deployed('fn', await actionsImage('1'))
  await using _witnesses = await startWitnesses(witnessPort, [
    [server, '::'],
    [phone, '::'],
  ])

  await step('of the server a peer reaches DNS and ping alone', async () => {
    await onBusyMachines(async () => {
      assert.deepEqual(await scan(device, dnsServer), { open: [53], others: ['silence'] })
      assert.deepEqual(await reach(device, [`ping,${dnsServer},0,`]), ['answer'])
    })
    await device.sh(`dig +time=3 fn.faas AAAA @${dnsServer} +short | grep -x ${host}`)
    await device.sh(`dig +time=3 +tcp fn.faas AAAA @${dnsServer} +short | grep -x ${host}`)
  })

  await step(
    'of a function a peer reaches port 80 and ping, and is told so at once for other ports',
    async () => {
      await onBusyMachines(async () => {
        assert.deepEqual(await scan(device, host), { open: [80], others: ['refused'] })
        assert.deepEqual(await reach(device, [`ping,${host},0,`]), ['answer'])
      })
      const free = await reach(device, ['tcp,fd00:faa5:1::99,80,'])
      assert.ok(free[0] !== 'answer', free[0])
    },
  )

  await step('a peer reaches no other peer', async () => {
    const { open } = await scan(device, otherPeer)
    assert.deepEqual(open, [])
    assert.deepEqual(await reach(device, [`ping,${otherPeer},0,`]), ['silence'])
  })

  await step(
    'a peer that routes everything into the tunnel reaches no other address of the server or its network',
    async () => {
      await device.sh(`
      wg set wg-faas peer "$(wg show wg-faas peers)" allowed-ips ::/0,0.0.0.0/0
      ip -6 route add ${server.ipv6}/128 dev wg-faas
      ip -6 route add ${stranger.ipv6}/128 dev wg-faas`)
      assert.deepEqual((await scan(device, server.ipv6, peer)).open, [])
      assert.deepEqual((await scan(device, stranger.ipv6, peer)).open, [])
      assert.deepEqual(await reach(device, [`ping,${server.ipv6},0,${peer}`]), ['silence'])
      await device.sh(
        `ip -6 route del ${server.ipv6}/128 dev wg-faas; ip -6 route del ${stranger.ipv6}/128 dev wg-faas`,
      )
    },
  )

  await step('a peer that sends from another peer’s address gets no answer', async () => {
    await device.sh(`ip -6 address add ${otherPeer}/128 dev wg-faas nodad`)
    assert.deepEqual(
      await reach(device, [`tcp,${host},80,${otherPeer}`, `tcp,${dnsServer},53,${otherPeer}`]),
      ['silence', 'silence'],
    )
    await device.sh(`ip -6 address del ${otherPeer}/128 dev wg-faas`)
    await onBusyMachines(async () => assert.deepEqual(await reach(device, [`tcp,${host},80,`]), ['answer']))
  })

  await step(
    'who is not in the tunnel reaches none of the platform’s addresses, whatever route it takes',
    async () => {
      await stranger.sh(`ip -6 route add fd00:faa5::/32 via ${server.ipv6} dev eth0`)
      const addresses = [dnsServer, host, peer]
      for (const result of await Promise.all(addresses.map((address) => scan(stranger, address)))) {
        assert.deepEqual(result, { open: [], others: ['silence'] })
      }
      const others = addresses.flatMap((address) => [`ping,${address},0,`, `udp,${address},53,`])
      assert.deepEqual(new Set(await reach(stranger, others)), new Set(['silence']))
    },
  )

  await step(
    'of the server’s public addresses only what the machine itself serves answers, and WireGuard says nothing',
    async () => {
      assert.deepEqual((await scan(stranger, server.ipv6)).open, [witnessPort])
      assert.deepEqual(await reach(stranger, [`udp,${server.ipv6},51820,`]), ['silence'])
    },
  )

  await step(
    'a local user calls neither functions nor the API, and reads nothing; root does both',
    async () => {
      const asNobody = [
        'setpriv',
        '--reuid',
        String(nobody),
        '--regid',
        String(nobody),
        '--clear-groups',
        '--',
      ]
      const refused = await server.exec([
        ...asNobody,
        'curl',
        '-sS',
        '-w',
        ' %{http_code}',
        'http://localhost:8080/api/list',
      ])
      assert.match(refused.stdout, /"CALLER_REFUSED"[^]* 403$/)
      assert.deepEqual(await reach(server, [`tcp,${host},80,`], { uid: nobody }), ['refused'])
      assert.deepEqual(await reach(server, [`tcp,${host},80,`]), ['answer'])
      for (const command of [
        'curl -sS --unix-socket /run/faasd/api.sock http://localhost/api/list',
        'ls /run/faasd/i',
        'ls /var/lib/faasd/bundles',
        'ls /var/lib/faasd/images',
        'cat /var/lib/faasd/images/fn/rootfs/app/handler.py',
        'ls /var/lib/faasd/store/layers',
        'cat /var/lib/faasd/registry.json',
        'cat /etc/wireguard/server_private.key',
        'cat /etc/wireguard/wg0.conf',
      ]) {
        const { code } = await server.exec([...asNobody, ...command.split(' ')], { okCodes: [0, 1, 2, 7] })
        assert.notEqual(code, 0, `nobody may: ${command}`)
      }
      assert.equal(await platform.get('http://fn.faas/version', device), '1')
    },
  )

  await step('a removed peer is out at once', async () => {
    assert.equal((await platform.api('DELETE', '/api/vpn/remove/laptop')).status, 200)
    assert.deepEqual(await reach(device, [`tcp,${host},80,`, `tcp,${dnsServer},53,`]), ['silence', 'silence'])
    assert.equal(await platform.get('http://fn.faas/version', phone), '1')
    await platform.invariants()
  })
})
