/**
 * A function that tries every way out of hardening §3.2 with the socket that it was passed, on the whole platform. Each attempt
 * has a connection of its own and prints what became of it; what it aims at is there, listening, and must see nothing.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { requestMany, requestOne } from './clients.ts'
import { actionsImage, hostileImage } from './images.ts'
import { type Platform, runtimes, skipReason, startPlatform } from './platform.ts'
import { startWitnesses } from './witnesses.ts'

/** Ports that only this test listens on. */
const witnessPort = 8090
const dnsServer = 'fd00:faa5:0:100::1'

const refusedConnect =
  /^(ECONNREFUSED|EPERM|EHOSTUNREACH|ENETUNREACH|EADDRNOTAVAIL|EINVAL|EAFNOSUPPORT|ETIMEDOUT)$/
const refusedCall = /^(EPERM|ENOSYS|EAFNOSUPPORT|EACCES)$/
const closedControl = /^(EPIPE|ECONNRESET)$/

for (const runtime of runtimes) {
  test(`a hostile function gets nowhere with the socket it was passed, with ${runtime}`, {
    skip: skipReason(runtime),
  }, async (t) => {
    await using platform = await startPlatform({ runtime, devices: 2 })
    const { server } = platform
    const { device, devices } = platform.lab
    const other = devices[1] ?? device
    const step = (name: string, body: (t: TestContext) => Promise<void>) => platform.step(t, name, body)
    await platform.join(device, 'laptop')
    const otherPeer = await platform.join(other, 'phone')
    const archive = await hostileImage()
    const host = await platform.deployed('hostile', archive, 'timeout=20s&max=8')
    const victim = await platform.deployed('victim', await actionsImage('1'))

    const targets: readonly (readonly [string, number])[] = [
      ['::1', 8080],
      ['::1', witnessPort],
      [dnsServer, 53],
      [dnsServer, witnessPort],
      [victim, 80],
      [host, 80],
      [otherPeer, witnessPort],
      [server.ipv6, witnessPort],
      ['fe80::1', 80],
    ]
    const targets4: readonly (readonly [string, number])[] = [
      ['127.0.0.1', 8080],
      ['127.0.0.1', witnessPort],
      [server.ipv4, witnessPort],
      ['169.254.169.254', 80],
    ]
    const ways6 = ['reconnect', 'rebind', 'fastopen', 'fastopen-high', 'fastopen-connect', 'direct']
    const attempts: (readonly [string, RegExp])[] = [
      ...targets.flatMap(([address, port]) => [
        [`/reconnect/${address}/${port}`, refusedConnect] as const,
        [`/fresh/${address}/${port}`, refusedConnect] as const,
      ]),
      ...ways6.flatMap((way) => [
        [`/${way}/::1/${witnessPort}`, way === 'direct' ? /^EISCONN$/ : refusedConnect] as const,
        [`/${way}/${victim}/80`, way === 'direct' ? /^EISCONN$/ : refusedConnect] as const,
      ]),
      ...targets4.flatMap(([address, port]) => [
        [`/mapped/${address}/${port}`, refusedConnect] as const,
        [`/reconnect/${address}/${port}`, refusedConnect] as const,
        [`/fresh/${address}/${port}`, refusedConnect] as const,
      ]),
      ['/bind/::/40000', refusedCall],
      [`/bind/${host}/81`, refusedCall],
      [`/bind/${victim}/80`, refusedCall],
      ['/listen', refusedCall],
      ['/accept', refusedCall],
      // SIOCGIFCONF, SIOCGIFHWADDR, SIOCETHTOOL, SIOCGSKNS, SIOCGSTAMP
      ...['0x8912', '0x8927', '0x8946', '0x894c', '0x8906'].map(
        (call) => [`/ioctl/${call}`, refusedCall] as const,
      ),
      ['/option/1/36/43689', refusedCall], // SO_MARK
      ['/option/1/25/lo', refusedCall], // SO_BINDTODEVICE
      ['/option/1/62/1', refusedCall], // SO_BINDTOIFINDEX
      ['/option/1/50/3', refusedCall], // SO_ATTACH_BPF
      ['/option/6/19/1', refusedCall], // TCP_REPAIR
      ['/option/6/31/tls', refusedCall], // TCP_ULP
      ['/option/6/13/reno', refusedCall], // TCP_CONGESTION
      ['/option/6/30/1', refusedCall], // TCP_FASTOPEN_CONNECT
      ['/option/41/1/2', refusedCall], // IPV6_ADDRFORM
      ['/option/41/75/1', refusedCall], // IPV6_TRANSPARENT
      ['/option/41/57/x', refusedCall], // IPV6_RTHDR
      // AF_NETLINK, AF_PACKET, AF_ALG, AF_VSOCK, and raw sockets
      ...[16, 17, 38, 40].map((family) => [`/family/${family}`, refusedCall] as const),
      ['/family/10', /^(EPERM|EPROTONOSUPPORT)$/],
      ['/second', /^ECONNREFUSED$/],
      // The kernel bounds descriptors in flight, if faasd has not closed the socket by then.
      ['/send-many', /^(EPIPE|ECONNRESET|ETOOMANYREFS)$/],
      ['/credentials', /^(EPIPE|ECONNRESET|EPERM)$/],
    ]

    // A socket of its own, in its own network, is the kernel's business: tried with the first runtime only.
    const tried = attempts.filter(([path]) => runtime === 'runc' || !path.startsWith('/fresh/'))

    await using witnesses = await startWitnesses(witnessPort, [
      [server, '::1'],
      [server, '127.0.0.1'],
      [server, server.ipv6],
      [server, server.ipv4],
      [server, dnsServer],
      [other, '::'],
    ])

    await step('the witnesses are there: from the server itself each is reached', async () => {
      for (const address of ['[::1]', '127.0.0.1', `[${server.ipv6}]`, server.ipv4, `[${dnsServer}]`]) {
        await server.exec(['curl', '-sS', '--max-time', '5', `http://${address}:${witnessPort}/`], {
          okCodes: [0, 52],
        })
      }
      await eventually('they saw it', () => assert.equal(witnesses.seen(), 5))
    })

    await step('P34–P43 every attempt is refused, and nobody it aimed at has seen anything', async () => {
      const [seen, accepted] = [witnesses.seen(), await acceptedOf(platform, 'victim')]
      for (let begin = 0; begin < tried.length; begin += 8) {
        const batch = tried.slice(begin, begin + 8)
        await Promise.all(batch.map(([path]) => requestMany(device, { host, path, timeoutMs: 30_000 })))
        await eventually(
          'each has told its outcome',
          async () => {
            const outcomes = await outcomesOf(platform)
            for (const [path] of batch) assert.ok(outcomes.has(path), `${path} has told nothing`)
          },
          { intervalMs: 200 },
        )
      }
      const outcomes = await outcomesOf(platform)
      const wrong = tried.filter(([path, expected]) => !expected.test(outcomes.get(path) ?? ''))
      assert.deepEqual(
        wrong.map(([path]) => `${path}: ${outcomes.get(path)}`),
        [],
      )
      assert.equal(witnesses.seen(), seen, 'a witness has seen a connection')
      assert.equal(await acceptedOf(platform, 'victim'), accepted, 'the other function has seen a connection')
      const count = (outcome: string) => [...outcomes.values()].filter((one) => one === outcome).length
      const kinds = [...new Set(outcomes.values())].map((outcome) => `${outcome} ${count(outcome)}`)
      t.diagnostic(`${tried.length} attempts were refused: ${kinds.join(', ')}`)
    })

    await step(
      'P45 a connection that is sent back over the control socket ends with its sender',
      async () => {
        const outcome = await requestOne(device, { host, path: '/send-back', timeoutMs: 15_000 })
        assert.equal(outcome.body, 'bye')
        assert.ok(outcome.msAfterFirstByte < 3_000, `closed after ${outcome.msAfterFirstByte} ms`)
        // Sent before faasd has closed the control socket it lies there unread, and goes with it.
        await eventually('it could not be sent, or not be received', async () =>
          assert.match((await outcomesOf(platform)).get('/send-back') ?? '', /^(EPIPE|ECONNRESET|done)$/),
        )
      },
    )

    await step('P46 P48 what is poured into the control socket costs the daemon nothing', async () => {
      const before = await costOf(platform)
      for (const path of ['/pour', '/send-many']) await requestOne(device, { host, path, timeoutMs: 30_000 })
      await eventually('it could not be poured', async () =>
        assert.match((await outcomesOf(platform)).get('/pour') ?? '', closedControl),
      )
      await eventually('its descriptors are those before', async () => {
        const after = await costOf(platform)
        assert.ok(after.descriptors <= before.descriptors + 4, `${before.descriptors} → ${after.descriptors}`)
        assert.ok(
          after.residentMiB - before.residentMiB < 48,
          `${before.residentMiB} → ${after.residentMiB} MiB`,
        )
      })
    })

    await step(
      'P50 a function that never takes its connection is ended, and its client’s connection closed',
      async () => {
        const address = await platform.deployed('taker', archive, 'timeout=2s&env=MODE=never-receive')
        const outcome = await requestOne(device, { host: address, path: '/answer', timeoutMs: 20_000 })
        assert.ok(['ECONNRESET', 'closed', 'EPIPE'].includes(outcome.end), outcome.end)
      },
    )

    await step('when the table is deleted it is back within seconds, and functions answer', async () => {
      const started = performance.now()
      await server.exec(['nft', 'delete', 'table', 'inet', 'faasd'])
      await eventually('the table is back', () => server.exec(['nft', 'list', 'table', 'inet', 'faasd']), {
        timeoutMs: 15_000,
      })
      t.diagnostic(`the table was back after ${Math.round(performance.now() - started)} ms`)
      await eventually('the log says it', () =>
        assert.match(platform.log(), /the rule for passed sockets is not in place/),
      )
      await eventually('a request is answered', async () => {
        assert.equal((await requestOne(device, { host, path: '/answer' })).body, 'answer')
      })
    })

    await step(
      'while the table cannot be put back no socket is passed: connections wait, and are answered later',
      async () => {
        const seen = witnesses.seen()
        const passed = await passedOf(platform, 'hostile')
        const early = requestOne(device, { host, path: `/later/::1/${witnessPort}`, timeoutMs: 30_000 })
        await eventually('a connection is passed while the rule is there', async () =>
          assert.equal(await passedOf(platform, 'hostile'), passed + 1),
        )
        await server.sh('mv /usr/sbin/nft /usr/sbin/nft.away && /usr/sbin/nft.away delete table inet faasd')
        try {
          await eventually('the gate is shut', async () => {
            const { body } = await platform.api('GET', '/api/health')
            const { checks } = body as { checks: Record<string, { status: string }> }
            assert.equal(checks.firewall?.status, 'failing')
          })
          const before = await acceptedOf(platform, 'hostile')
          const waiting = requestOne(device, { host, path: '/answer', timeoutMs: 60_000 })
          let answered = false
          void waiting.then(() => (answered = true))
          await early
          await eventually(
            'without the rule the way out is open: it is the rule that closes it',
            async () => {
              assert.equal((await outcomesOf(platform)).get(`/later/::1/${witnessPort}`), 'connected')
              assert.equal(witnesses.seen(), seen + 1)
            },
          )
          assert.equal(answered, false, 'a request was answered without the rule')
          assert.equal(
            await acceptedOf(platform, 'hostile'),
            before,
            'a connection was taken without the rule',
          )
          await server.sh('mv /usr/sbin/nft.away /usr/sbin/nft')
          assert.equal((await waiting).body, 'answer')
        } finally {
          await server.sh('if [[ -e /usr/sbin/nft.away ]]; then mv /usr/sbin/nft.away /usr/sbin/nft; fi')
        }
      },
    )

    await step('nothing is left of all this', () => platform.invariants())
  })
}

/** What each attempt has printed, by its path. */
async function outcomesOf(platform: Platform): Promise<ReadonlyMap<string, string>> {
  const logs = await platform.logsOf('hostile')
  return new Map(
    [...logs.matchAll(/attempt (\S+): (.+)$/gm)].map(([, path = '', outcome = '']) => [path, outcome.trim()]),
  )
}

async function connectionsOf(
  platform: Platform,
  name: string,
): Promise<{ accepted: number; passed: number }> {
  const { body } = await platform.api('GET', `/api/functions/${name}/stats`)
  return (body as { connections: { accepted: number; passed: number } }).connections
}

const acceptedOf = async (platform: Platform, name: string) => (await connectionsOf(platform, name)).accepted
const passedOf = async (platform: Platform, name: string) => (await connectionsOf(platform, name)).passed

async function costOf(platform: Platform): Promise<{ descriptors: number; residentMiB: number }> {
  const pid = await platform.pidOf('src/daemon/main.ts')
  const text = await platform.server.sh(`ls /proc/${pid}/fd | wc -l; grep VmRSS /proc/${pid}/status`)
  const [count = '0', status = ''] = text.split('\n')
  return { descriptors: Number(count), residentMiB: Number(/(\d+) kB/.exec(status)?.[1]) / 1024 }
}
