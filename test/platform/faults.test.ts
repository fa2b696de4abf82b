/** Faults under `faas up` and between its runs (hardening §4.4): what breaks is put right, and what was acknowledged survives. */
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { eventually } from '../../src/host/eventually.ts'
import { requestOne } from './clients.ts'
import { actionsImage } from './images.ts'
import { pathIn, runtimes, skipReason, startPlatform } from './platform.ts'

/** Issue 3 promises 5 s on a machine that is not busy with other things. */
const healingMs = 15_000
const dnsServer = 'fd00:faa5:0:100::1'

for (const runtime of runtimes) {
  test(`the platform survives faults, with ${runtime}`, { skip: skipReason(runtime) }, async (t) => {
    await using platform = await startPlatform({ runtime })
    const { server } = platform
    const { device } = platform.lab
    const step = (name: string, body: (t: TestContext) => Promise<void>) => platform.step(t, name, body)
    /** Waits until `check` passes and says how long that took. */
    const heals = async (
      context: TestContext,
      what: string,
      check: () => Promise<unknown>,
    ): Promise<void> => {
      const begin = performance.now()
      await eventually(what, check, { timeoutMs: healingMs, intervalMs: 50 })
      context.diagnostic(`${what} after ${Math.round(performance.now() - begin)} ms`)
    }
    const instancesOf = async (name: string) => {
      const { body } = await platform.api('GET', `/api/functions/${name}`)
      return (body as { instances: number }).instances
    }
    const daemonPid = () => platform.pidOf('src/daemon/main.ts')

    const peer = await platform.join(device, 'laptop')
    const archive = await actionsImage('1')
    const one = await platform.deployed('one', archive)
    const two = await platform.deployed('two', archive)
    // By address: a resolver that has lost a packet waits five seconds before it asks again.
    const answers = async (host = one) => {
      const outcome = await requestOne(device, { host, path: '/version', timeoutMs: 2_000 })
      assert.equal(outcome.body, '1', outcome.end)
    }
    await answers()

    await step(
      'F22 kill -9 of faasd: it serves again within seconds, and requests in flight are answered',
      async (context) => {
        const inFlight = [1, 2, 3, 4].map(() =>
          requestOne(device, { host: one, path: '/sleep/6', timeoutMs: 60_000 }),
        )
        await eventually('they are with instances', async () => {
          const { body } = await platform.api('GET', '/api/functions/one/stats')
          assert.equal((body as { connections: { passed: number } }).connections.passed, 5)
        })
        const before = platform.starts()
        await server.exec(['kill', '-9', String(await daemonPid())])
        await heals(context, 'a request is answered', answers)
        assert.equal(platform.starts(), before + 1)
        assert.match(platform.log(), /of an earlier run, 4 instances go on/)
        for (const request of inFlight) assert.equal((await request).body, 'slept')
        await platform.invariants()
      },
    )

    if (runtime === 'runc')
      await step('F22 a request in flight at the end of faasd still ends at its time limit', async () => {
        const address = await platform.deployed('limited', archive, 'timeout=5s')
        const request = requestOne(device, { host: address, path: '/silent', timeoutMs: 60_000 })
        await eventually('it is with an instance', async () => {
          const { body } = await platform.api('GET', '/api/functions/limited/stats')
          assert.equal((body as { connections: { passed: number } }).connections.passed, 1)
        })
        await server.exec(['kill', '-9', String(await daemonPid())])
        const { end } = await request
        assert.ok(['ECONNRESET', 'closed', 'EPIPE'].includes(end), end)
        await eventually('faasd serves', () => platform.api('GET', '/api/health'))
        assert.equal((await platform.remove('limited')).status, 200)
        await platform.invariants()
      })

    if (runtime === 'runc')
      await step('F25 kill -9 of CoreDNS: names resolve again within seconds', async (context) => {
        await server.exec(['kill', '-9', String(await platform.pidOf('coredns -conf'))])
        await heals(context, 'a name resolves', async () => {
          const found = await device.sh(`dig +short +time=1 +tries=1 one.faas AAAA @${dnsServer}`)
          assert.equal(found.trim(), one)
        })
      })

    if (runtime === 'runc')
      await step(
        'F24 kill -9 of wireguard-go: the tunnel is back within seconds, with the same keys and peers',
        async (context) => {
          const key = await server.sh('wg show wg0 public-key')
          const { code } = await server.exec(['pkill', '-9', '-f', 'wireguard-go wg0'], { okCodes: [0, 1] })
          if (code !== 0) return context.skip('the kernel itself carries WireGuard here')
          await heals(context, 'a device’s request is answered', answers)
          assert.equal(await server.sh('wg show wg0 public-key'), key)
          await platform.invariants()
        },
      )

    if (runtime === 'runc')
      await step('F24 the link deleted by hand: the tunnel is back within seconds', async (context) => {
        await server.exec(['ip', 'link', 'delete', 'wg0'])
        await heals(context, 'a device’s request is answered', answers)
        await platform.invariants()
      })

    if (runtime === 'runc')
      await step(
        'F30 addresses: one that was taken away comes back, one of no function goes, a foreign one stays',
        async (context) => {
          await server.sh(`
        ip -6 address add fd00:faa5:1::99/128 dev wg0
        ip -6 address add fd00:1234::1/128 dev wg0
        ip -6 address del ${two}/128 dev wg0`)
          await heals(context, 'the addresses are right', async () => {
            const addresses = await server.sh('ip -6 address show dev wg0')
            assert.match(addresses, new RegExp(` ${two}/128`))
            assert.doesNotMatch(addresses, /fd00:faa5:1::99/)
          })
          assert.match(await server.sh('ip -6 address show dev wg0'), /fd00:1234::1\/128/)
          await server.exec(['ip', '-6', 'address', 'del', 'fd00:1234::1/128', 'dev', 'wg0'])
        },
      )

    if (runtime === 'runc')
      await step(
        'kill -9 of `faas up` itself: what it ran ends, and the next one takes over, requests in flight too',
        async (context) => {
          const request = requestOne(device, { host: one, path: '/sleep/8', timeoutMs: 60_000 })
          await eventually('it is with an instance', async () => assert.equal(await instancesOf('one'), 1))
          await delay(500)
          await server.exec(['kill', '-9', String(await platform.pidOf('src/cli/main.ts up'))])
          await platform.up()
          await heals(context, 'a request is answered', answers)
          assert.equal((await request).body, 'slept')
          await platform.invariants()
        },
      )

    if (runtime === 'runc')
      await step(
        'Ctrl-C twice: `faas up` does not wait for requests, and the next one takes over',
        async () => {
          const request = requestOne(device, { host: one, path: '/sleep/8', timeoutMs: 60_000 })
          await eventually('it is with an instance', async () => assert.equal(await instancesOf('one'), 1))
          const pid = await platform.pidOf('src/cli/main.ts up')
          await server.sh(`sleep 0.5; kill -INT ${pid}; sleep 1.5; kill -INT ${pid}`)
          await eventually('it has ended', () => server.sh(`! kill -0 ${pid} 2>/dev/null`))
          await platform.up()
          assert.equal((await request).body, 'slept')
          await platform.invariants()
        },
      )

    if (runtime === 'runc')
      await step(
        'F31 a second `faas up` and a second faasd say that one runs already, and change nothing',
        async () => {
          for (const command of [['faas', 'up'], ['faasd']]) {
            const second = server.spawn(command)
            const code = await Promise.race([second.exited, delay(20_000, 'still running', { ref: false })])
            assert.equal(code, 1, `${command.join(' ')}: ${second.output()}`)
            assert.match(second.output(), /already/i)
          }
          await answers()
          await platform.invariants()
        },
      )

    await step('F33 SIGTERM: a request in flight is answered, then nothing is left running', async () => {
      const last = requestOne(device, { host: one, path: '/sleep/3', timeoutMs: 30_000 })
      await eventually('it is with an instance', async () => assert.equal(await instancesOf('one'), 1))
      await delay(500)
      assert.equal(await platform.down(), 0)
      assert.equal((await last).body, 'slept')
      const left = await server.sh(`
        ps -eo args | grep -E '[c]oredns|[w]ireguard-go|[m]ain.ts' || true
        ip -o link show dev wg0 2>/dev/null || true
        nft list tables | grep faasd || true
        grep /var/lib/faasd/ /proc/mounts || true
        ls -A /var/lib/faasd/bundles; ls -A /run/faasd/i; ls -A /run/wireguard 2>/dev/null || true
        runc list -q; crun list -q
        find /sys/fs/cgroup -mindepth 2 -type d -name 'faas-*' 2>/dev/null || true`)
      assert.equal(left, '')
    })

    await step(
      'F26 F30 a damaged registry and leftovers of every kind: the last good one is used, said aloud, and all is put right',
      async () => {
        await server.sh(`
        cd /var/lib/faasd
        truncate -s 100 registry.json
        mkdir -p bundles/faas-gone-0a0b0c0d /run/faasd/i/faas-gone-0a0b0c0d store/staging/left store/layers/${'0'.repeat(64)}
        touch bundles/faas-gone-0a0b0c0d/config.json /run/faasd/i/faas-gone-0a0b0c0d/c store/staging/left/layer
        echo '{}' > store/images/${'0'.repeat(64)}.json
        mkdir -p images/gone/versions/000000000000/rootfs
        echo garbage > dns/faas.db
        wg-quick up wg0 2>/dev/null
        ip -6 address add fd00:faa5:1::99/128 dev wg0
        nft 'table inet faasd { chain output { type filter hook output priority 0; drop; }; }'`)
        const already = platform.log().length
        await platform.up()
        assert.match(
          platform.log().slice(already),
          /error: registry\.json[\s\S]*the last good registry is used: 2 functions/,
        )
        const files = await readdir(pathIn(server, 'faasd'))
        assert.equal(files.filter((file) => file.startsWith('registry.json.bad-')).length, 1)
        const { body } = await platform.api('GET', '/api/list')
        const list = body as Record<string, { ip: string }>
        assert.deepEqual(
          Object.entries(list).map(([name, { ip }]) => [name, ip]),
          [
            ['one', one],
            ['two', two],
          ],
        )
        await eventually('a device’s request is answered', () => answers('two.faas'), { timeoutMs: 30_000 })
        assert.equal((await requestOne(device, { host: one, path: '/peer' })).body, peer)
        await platform.invariants()
      },
    )

    if (runtime === 'runc')
      await step(
        'F26 where no good registry is left faasd does not start, now or later, and keeps what it found',
        async () => {
          assert.equal(await platform.down(), 0)
          const sums = 'cd /var/lib/faasd && sha256sum registry* | cut -d" " -f1 | sort'
          const before = await server.sh(
            `cd /var/lib/faasd && truncate -s 50 registry.json && truncate -s 40 registry.last-good.json && ${sums}`,
          )
          for (const _start of [1, 2]) {
            const { code, stdout, stderr } = await server.exec(['faasd'], { okCodes: [1] })
            assert.equal(code, 1)
            assert.match(`${stdout}${stderr}`, /REGISTRY_CORRUPT/)
          }
          assert.equal(await server.sh(sums), before)
        },
      )
  })
}
