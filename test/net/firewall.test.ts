/** The rules at work: real nftables, real packets, and a hostile handler that was passed sockets. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline/promises'
import { after, before, beforeEach, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { eventually } from '../../src/host/eventually.ts'
import { exec } from '../../src/host/exec.ts'
import { acceptTcp, closeFd, listenTcp } from '../../src/host/native/sockets.ts'
import { functionPort, passedSocketMark } from '../../src/net/addresses.ts'
import { createFirewall } from '../../src/net/firewall.ts'
import { applyNetworkSettings } from '../../src/net/settings.ts'
import { parseIpv6 } from '../../src/values/ipv6.ts'
import { enterNamespaces, missingFor } from './namespace.ts'
import {
  buildTopology,
  functionA,
  functionB,
  invited,
  lanHost,
  peerA,
  peerB,
  reach,
  server,
  serverOnLan,
  serveTcp,
  serveTcpIn,
  serveUdp,
} from './topology.ts'

const listeners = [functionA, functionB].map((address) => ({
  address: parseIpv6(address),
  port: functionPort,
}))
const portOpenedByFunction = 40_000

if (enterNamespaces(import.meta.filename, ['nft', 'sysctl'])) {
  const firewall = createFirewall({ exec })
  await using cleanup = new AsyncDisposableStack()
  const resources = cleanup.move()
  const listening = new Map<string, number>()

  before(async () => {
    await buildTopology()
    for (const address of [functionA, functionB]) {
      const fd = listenTcp({ address, port: functionPort, mark: passedSocketMark, backlog: 64 })
      listening.set(address, fd)
      resources.defer(() => closeFd(fd))
    }
    resources.use(await serveTcp('::1', 8080))
    resources.use(await serveTcp('127.0.0.1', 8080))
    resources.use(await serveTcp('::', 2222))
    resources.use(await serveTcp(server, 53))
    resources.use(await serveTcp(server, 51821))
    resources.use(await serveUdp(server, 53))
    resources.use(await serveUdp(server, 5353))
    resources.use(await serveTcpIn('lan', lanHost, 7070))
    resources.use(await serveTcpIn('device', '::', 7070))
  })
  after(() => resources.disposeAsync())
  beforeEach(() => firewall.cleanUp())

  /** Connections accepted on a function's listener, as faasd passes them, and their callers' ends. */
  async function acceptedSockets(count: number): Promise<{ fds: number[]; clients: Socket[] }> {
    const listener = listening.get(functionA) ?? -1
    while (acceptTcp(listener)) {}
    const fds: number[] = []
    const clients: Socket[] = []
    for (let index = 0; index < count; index++) {
      clients.push(connect({ host: functionA, port: functionPort }).on('error', () => {}))
      const accepted = await eventually('a connection to accept', () => {
        const next = acceptTcp(listener)
        assert.ok(next)
        return next
      })
      fds.push(accepted.fd)
    }
    return { fds, clients }
  }

  /** Lets a hostile handler try `attempts`; `look` runs while it still holds its sockets. */
  async function escape<T>(
    attempts: readonly string[],
    look: (results: readonly string[], clients: readonly Socket[]) => Promise<T>,
  ): Promise<T> {
    const { fds, clients } = await acceptedSockets(attempts.length)
    const extra = listenTcp({ address: 'fd00:faa5:1::c', port: 80, mark: passedSocketMark, backlog: 8 })
    const passed = attempts.map((attempt, index) =>
      attempt.startsWith('shutdownListener') ? extra : (fds[index] ?? -1),
    )
    const child = spawn(
      'unshare',
      ['--net', process.execPath, new URL('escape.ts', import.meta.url).pathname, ...attempts],
      { stdio: ['pipe', 'pipe', 'inherit', ...passed] },
    )
    for (const fd of [...fds, extra]) closeFd(fd)
    try {
      for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
        return await look(JSON.parse(line) as string[], clients)
      }
      throw new Error('the handler ended without a word')
    } finally {
      child.kill('SIGKILL')
      for (const client of clients) client.destroy()
    }
  }

  const waysOut = [
    'reconnect,::1,8080',
    `reconnect,${server},53`,
    `reconnect,${functionB},80`,
    `reconnect,${peerB},7070`,
    `reconnect,${lanHost},7070`,
    `reconnect,${serverOnLan},2222`,
    'rebind,::1,8080',
    'rebind,::ffff:7f00:1,8080',
    'fastopen,::1,8080',
    'fastopenConnect,::1,8080',
    'shutdownListener,::1,8080',
  ]
  const openedPorts = [
    `bindAndListen,::,${portOpenedByFunction}`,
    'listen,::,0',
    `takeListener,${functionB},80`,
  ]

  /** What an outsider gets at the ports that the handler opened. */
  async function lookAtOpenedPorts(results: readonly string[]): Promise<readonly string[]> {
    const port = /^listening (\d+)$/.exec(results[1] ?? '')?.[1] ?? '1'
    const here = [
      `tcp,::1,${portOpenedByFunction},`,
      `tcp,${serverOnLan},${portOpenedByFunction},`,
      `tcp,127.0.0.1,${portOpenedByFunction},`,
      `tcp,${functionA},${port},`,
    ]
    const fromLan = [`tcp,${serverOnLan},${portOpenedByFunction},`, `tcp,192.0.2.1,${portOpenedByFunction},`]
    const fromDevice = [`tcp,${functionA},${port},${peerA}`, `tcp,${server},${portOpenedByFunction},${peerA}`]
    return (
      await Promise.all([reach(undefined, here), reach('lan', fromLan), reach('device', fromDevice)])
    ).flat()
  }

  test('without the rules a passed socket gets out every way (the control: these ways are real)', async () => {
    await writeFile('/proc/sys/net/ipv4/tcp_fastopen', '1')
    const results = await escape(waysOut, async (all) => all)
    assert.deepEqual(
      results,
      waysOut.map(() => 'connected'),
    )
    const reached = await escape(openedPorts, lookAtOpenedPorts)
    assert.deepEqual(
      reached,
      reached.map(() => 'answer'),
    )
  })

  test('P34 P35 P39 with the rules a passed socket originates nothing, whatever call begins it', async () => {
    await writeFile('/proc/sys/net/ipv4/tcp_fastopen', '1')
    await firewall.apply({ listeners })
    const results = await escape(waysOut, async (all) => all)
    assert.equal(results.length, waysOut.length)
    for (const [index, result] of results.entries()) assert.notEqual(result, 'connected', waysOut[index])
  })

  test('P36 P37 P38 with the rules nobody reaches a port that a function opened on a passed socket', async () => {
    await firewall.apply({ listeners })
    const [opened, reached] = await escape(openedPorts, async (results) => [
      results,
      await lookAtOpenedPorts(results),
    ])
    assert.match(opened?.[0] ?? '', /^listening/)
    assert.match(opened?.[2] ?? '', /^E/)
    for (const result of reached ?? []) assert.notEqual(result, 'answer')
  })

  test('an accepted connection answers with the rules in place, and is not cut when they are applied again', async () => {
    await firewall.apply({ listeners })
    await escape(['answer'], async (results, clients) => {
      assert.deepEqual(results, ['sent'])
      await firewall.apply({ listeners })
      const [answer] = clients[0] === undefined ? [] : await once(clients[0], 'data')
      assert.equal(String(answer), 'answer')
    })
  })

  test('a passed socket cannot lead its packets over another machine by a routing header', async (t) => {
    const heard = async () => {
      const { stdout } = await exec('ip', ['netns', 'exec', 'lan', 'nft', 'list', 'table', 'ip6', 'heard'])
      return Number(/packets (\d+)/.exec(stdout)?.[1])
    }
    const table = `table ip6 heard {
      chain input { type filter hook prerouting priority 0; ip6 saddr ${functionA} counter; }
    }`
    const attempt = () =>
      escape([`route,${lanHost},0`], async ([result]) => {
        if (result !== 'sent') return undefined
        await delay(300)
        return await heard()
      })
    await exec('ip', ['netns', 'exec', 'lan', 'nft', table])
    const without = await attempt()
    if (without === undefined) return t.skip('requires a kernel with segment routing for a control')
    assert.ok(without > 0, 'the control: the packet does get there')
    await firewall.apply({ listeners })
    const before = await heard()
    assert.equal(await attempt(), before)
  })

  test("another table's accept at any priority and a changed mark do not undo the rules", async () => {
    const other = (priority: number) => `table inet other${priority + 400} {
      chain output { type filter hook output priority ${priority}; policy accept; accept; }
      chain input { type filter hook input priority ${priority}; policy accept; accept; }
      chain forward { type filter hook forward priority ${priority}; policy accept; accept; }
    }
    table inet marks {
      chain output { type route hook output priority -150; policy accept; meta mark set 0; }
    }`
    await exec('nft', [[-400, 0, 300].map(other).join('\n')])
    await firewall.apply({ listeners })
    try {
      const results = await escape(waysOut.slice(0, 6), async (all) => all)
      for (const result of results) assert.notEqual(result, 'connected')
      assert.deepEqual(
        await reach('device', [`tcp,${serverOnLan},2222,${peerA}`, `tcp,${lanHost},7070,${peerA}`]),
        ['silence', 'silence'],
      )
    } finally {
      for (const name of ['other0', 'other400', 'other700', 'marks']) {
        await exec('nft', ['delete', 'table', 'inet', name])
      }
    }
  })

  test('a peer reaches DNS and functions, and nothing else of the server, of its networks or of other peers', async () => {
    await firewall.apply({ listeners })
    const expected = {
      [`tcp,${functionA},80,${peerA}`]: 'answer',
      [`tcp,${functionB},80,${peerB}`]: 'answer',
      [`udp,${server},53,${peerA}`]: 'answer',
      [`tcp,${server},53,${peerA}`]: 'answer',
      [`tcp,${functionA},443,${peerA}`]: 'refused',
      [`tcp,${functionA},2222,${peerA}`]: 'refused',
      [`tcp,fd00:faa5:1::99,80,${peerA}`]: 'unreachable',
      [`tcp,${server},2222,${peerA}`]: 'silence',
      [`tcp,${server},51821,${peerA}`]: 'silence',
      [`udp,${server},5353,${peerA}`]: 'silence',
      [`tcp,${serverOnLan},2222,${peerA}`]: 'silence',
      [`tcp,${lanHost},7070,${peerA}`]: 'silence',
      [`udp,${functionA},53,${peerA}`]: 'silence',
      // Sources that are nobody's on the tunnel.
      [`tcp,${functionA},80,fd00:faa5:0:300::a`]: 'silence',
    }
    const answers = await reach('device', Object.keys(expected))
    assert.deepEqual(
      Object.fromEntries(Object.keys(expected).map((key, index) => [key, answers[index]])),
      expected,
    )
  })

  test('an invited device reaches the join service and nothing else', async () => {
    await firewall.apply({ listeners })
    assert.deepEqual(
      await reach('device', [
        `tcp,${server},51821,${invited}`,
        `tcp,${server},53,${invited}`,
        `udp,${server},53,${invited}`,
        `tcp,${functionA},80,${invited}`,
        `tcp,${server},2222,${invited}`,
        `tcp,${lanHost},7070,${invited}`,
      ]),
      ['answer', ...Array<string>(5).fill('silence')],
    )
  })

  test('peers ping the server and functions, invited devices nobody', {
    skip: missingFor(['ping']) ?? false,
  }, async () => {
    await firewall.apply({ listeners })
    assert.deepEqual(
      await reach('device', [
        `ping,${server},0,${peerA}`,
        `ping,${functionA},0,${peerA}`,
        `ping,${serverOnLan},0,${peerA}`,
        `ping,${server},0,${invited}`,
      ]),
      ['answer', 'answer', 'silence', 'silence'],
    )
    assert.deepEqual(await reach(undefined, [`ping,${peerA},0,${server}`]), ['answer'])
  })

  test("the platform's addresses do not answer on other interfaces, and the peers are not reached from there", async () => {
    const targets = [
      `tcp,${functionA},80,`,
      `tcp,${server},53,`,
      `udp,${server},53,`,
      `tcp,${server},51821,`,
      `tcp,${peerA},7070,`,
    ]
    const control = await reach('lan', [...targets, `tcp,${serverOnLan},2222,`])
    assert.deepEqual(control, Array<string>(6).fill('answer'))
    await firewall.apply({ listeners })
    assert.deepEqual(await reach('lan', [...targets, `tcp,${serverOnLan},2222,`]), [
      ...Array<string>(5).fill('silence'),
      'answer',
    ])
  })

  test('on the server itself root calls functions, other users are refused', async () => {
    await firewall.apply({ listeners })
    const targets = [`tcp,${functionA},80,`, `tcp,::1,8080,`]
    assert.deepEqual(await reach(undefined, targets), ['answer', 'answer'])
    assert.deepEqual(await reach(undefined, targets, { uid: 65534 }), ['refused', 'answer'])
  })

  test('addListeners() opens, removeListeners() closes, both can be repeated, and verify() follows', async () => {
    await firewall.apply({ listeners: [] })
    const target = [`tcp,${functionA},80,${peerA}`]
    assert.deepEqual(await reach('device', target), ['refused'])
    await firewall.addListeners(listeners)
    await firewall.addListeners(listeners)
    assert.deepEqual(await reach('device', target), ['answer'])
    assert.equal(await firewall.verify(), true)
    await firewall.removeListeners(listeners)
    await firewall.removeListeners(listeners)
    assert.deepEqual(await reach('device', target), ['refused'])
    assert.equal(await firewall.verify(), true)
  })

  test('verify() notices every kind of tampering, and apply() mends it', async (t) => {
    const rule = 'inet faasd output'
    const tampering: Record<string, string> = {
      'a deleted table': 'delete table inet faasd',
      'flushed rules of all tables': 'flush ruleset',
      'a flushed chain': 'flush chain inet faasd passed',
      'an added accept': `insert rule ${rule} accept`,
      'an appended accept': 'add rule inet faasd from_tunnel accept',
      'an added listener': `add element inet faasd listeners { ${functionA} . 4000 }`,
      'a removed listener': `delete element inet faasd listeners { ${functionA} . 80 }`,
      'a dormant table': 'add table inet faasd { flags dormant; }',
      'an added chain': 'add chain inet faasd extra',
    }
    for (const [name, command] of Object.entries(tampering)) {
      await t.test(name, async () => {
        await firewall.apply({ listeners })
        assert.equal(await firewall.verify(), true)
        await exec('nft', [command])
        assert.equal(await firewall.verify(), false)
        await firewall.apply({ listeners })
        assert.equal(await firewall.verify(), true)
      })
    }
    await t.test('a deleted rule', async () => {
      await firewall.apply({ listeners })
      const { stdout } = await exec('nft', ['-a', 'list', 'chain', 'inet', 'faasd', 'passed'])
      const handle = /drop # handle (\d+)/.exec(stdout)?.[1] ?? ''
      await exec('nft', ['delete', 'rule', 'inet', 'faasd', 'passed', 'handle', handle])
      assert.equal(await firewall.verify(), false)
    })
    await t.test('a change in an unrelated table is none', async () => {
      await firewall.apply({ listeners })
      await exec('nft', ['add', 'table', 'inet', 'unrelated'])
      assert.equal(await firewall.verify(), true)
    })
  })

  test('changing listeners of a table that is gone says so', async () => {
    await firewall.apply({ listeners })
    await exec('nft', ['flush', 'ruleset'])
    await assert.rejects(firewall.addListeners(listeners), { code: 'FIREWALL_NOT_IN_PLACE' })
    await assert.rejects(firewall.removeListeners(listeners), { code: 'FIREWALL_NOT_IN_PLACE' })
  })

  test('cleanUp() removes the table and nothing else, and can be repeated', async () => {
    await exec('nft', ['flush ruleset; add table inet unrelated'])
    await firewall.apply({ listeners })
    await firewall.cleanUp()
    await firewall.cleanUp()
    assert.equal((await exec('nft', ['list', 'tables'])).stdout, 'table inet unrelated\n')
  })

  test('apply() takes ten thousand listeners at once', async () => {
    const many = Array.from({ length: 10_000 }, (_, index) => ({
      address: parseIpv6(`fd00:faa5:1::${(index + 10).toString(16)}`),
      port: 80,
    }))
    await firewall.apply({ listeners: many })
    assert.equal(await firewall.verify(), true)
  })

  test('applyNetworkSettings() turns Fast Open off and refuses ports that anyone may bind', async () => {
    await applyNetworkSettings()
    assert.equal((await readFile('/proc/sys/net/ipv4/tcp_fastopen', 'utf8')).trim(), '0')
    await writeFile('/proc/sys/net/ipv4/ip_unprivileged_port_start', '80')
    await assert.rejects(applyNetworkSettings(), { code: 'FIREWALL_NOT_IN_PLACE' })
    await writeFile('/proc/sys/net/ipv4/ip_unprivileged_port_start', '1024')
    await applyNetworkSettings()
  })
}
