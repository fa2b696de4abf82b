/**
 * Instances of the `fd` contract that wait for their connection: that a call finds one, that they are replaced, grow
 * with traffic and go, and that nothing but the connections of an instance is lost with it. What came first is told by
 * the handlers' and the callers' common clock; no test depends on how long anything takes.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { eventually } from '../../src/host/eventually.ts'
import {
  type Call,
  createWorld,
  handlerImage,
  median,
  runtimes,
  talkingHandler,
  type World,
} from './fd-world.ts'

const tokens = (calls: readonly Call[]): Set<string> => new Set(calls.map(({ token }) => token))
const failed = (calls: readonly Call[]): readonly Call[] => calls.filter(({ error }) => error !== undefined)
const waitedBefore = ({ waitsSince, calledAt }: Call): boolean => waitsSince < calledAt

for (const runtime of runtimes) {
  describe(`standbys under ${runtime}`, { timeout: 200_000 }, () => {
    let world: World
    before(async () => {
      world = await createWorld(runtime)
    })
    after(() => world?.[Symbol.asyncDispose]())

    test('with --standby 2 each call gets an instance that waited before it, and that is replaced', async (t) => {
      await world.deploy('two', await handlerImage('two', talkingHandler('1')), '--standby', '2')
      const { standby, reuse } = await world.describe('two')
      assert.deepEqual({ standby, reuse }, { standby: 2, reuse: false })
      const calls: Call[] = []
      for (let round = 0; round < 5; round++) {
        await world.settled('two', 2)
        const before = await world.instances('two')
        const pair = await world.call('two', 2, 2)
        assert.deepEqual(failed(pair), [])
        calls.push(...pair)
        await world.settled('two', 2)
        const now = await world.instances('two')
        assert.deepEqual(
          now.filter((id) => before.includes(id)),
          [],
        )
      }
      assert.deepEqual(
        calls.filter((call) => !waitedBefore(call)),
        [],
      )
      assert.equal(tokens(calls).size, 10)
      t.diagnostic(
        `first byte with a standby: median ${median(calls.map((c) => c.firstByteMs)).toFixed(1)} ms`,
      )
    })

    test('--standby 0 never keeps one ahead', async (t) => {
      await world.deploy('none', await handlerImage('none', talkingHandler('1')), '--standby', '0')
      const calls = await world.call('none', 6)
      assert.deepEqual(failed(calls), [])
      assert.deepEqual(calls.filter(waitedBefore), [])
      await world.settled('none', 0)
      t.diagnostic(`first byte without one: median ${median(calls.map((c) => c.firstByteMs)).toFixed(1)} ms`)
    })

    test('without --standby they come with steady traffic and are gone when it has ended', async () => {
      await world.deploy('demand', await handlerImage('demand', talkingHandler('1')), '--idle', '2s')
      await world.settled('demand', 0)
      const [first] = await world.call('demand', 1)
      assert.ok(first && !waitedBefore(first))
      await world.settled('demand', 0)
      await eventually(
        'a call finds a standby',
        async () => {
          const calls = await world.call('demand', 3)
          assert.deepEqual(failed(calls), [])
          assert.ok(calls.some(waitedBefore))
        },
        { timeoutMs: 30_000, intervalMs: 10 },
      )
      await world.settled('demand', 0)
      assert.deepEqual(await world.instances('demand'), [])
    })

    test('100 calls at once are all answered by instances of their own, of which no more than --max exist', async () => {
      const options = ['--max', '6', '--standby', '2', '--queue-timeout', '60s']
      await world.deploy('crowd', await handlerImage('crowd', talkingHandler('1')), ...options)
      let most = 0
      let over = false
      const watching = (async () => {
        while (!over) most = Math.max(most, (await world.stats('crowd')).instances)
      })()
      const calls = await world.call('crowd', 100, 100)
      over = true
      await watching
      assert.deepEqual(failed(calls), [])
      assert.equal(tokens(calls).size, 100)
      assert.ok(most > 1 && most <= 6, `${most} instances`)
      await world.settled('crowd', 2)
      const { connections } = await world.stats('crowd')
      assert.deepEqual(connections, { accepted: 100, passed: 100, refused: 0, failed: 0 })
    })

    test('a standby that is killed is replaced, and no call is lost with it', async () => {
      await world.deploy('killed', await handlerImage('killed', talkingHandler('1')), '--standby', '1')
      for (let round = 0; round < 3; round++) {
        await world.settled('killed', 1)
        const pids = await world.pids('killed')
        assert.equal(pids.length, 1)
        await world.server.exec(['kill', '-KILL', ...pids.map(String)])
        const [call] = await world.call('killed', 1)
        assert.equal(call?.error, undefined)
      }
      await world.settled('killed', 1)
      assert.equal((await world.stats('killed')).connections.failed, 0)
    })

    test('a new version ends the standbys of the old one, also under load, and a removal ends them all', async () => {
      await world.deploy('next', await handlerImage('next', talkingHandler('1')), '--standby', '2')
      await world.settled('next', 2)
      const old = await world.instances('next')
      const loading = world.call('next', 40, 2)
      await world.deploy('next', await handlerImage('next', talkingHandler('2')), '--standby', '1')
      const calls = await world.call('next', 2)
      assert.deepEqual(
        calls.map(({ version }) => version),
        ['2', '2'],
      )
      assert.deepEqual(failed(await loading), [])
      await world.settled('next', 1)
      assert.deepEqual(
        (await world.instances('next')).filter((id) => old.includes(id)),
        [],
      )
      await world.server.exec(['faas', 'rm', 'next'])
      await eventually('nothing of it is left', async () => {
        assert.deepEqual(await world.instances('next'), [])
        assert.deepEqual(await world.pids('next'), [])
      })
    })

    test('while the packet filter is not in place nothing is passed to a standby, and what waits is served after', async () => {
      await world.deploy('gate', await handlerImage('gate', talkingHandler('1')), '--standby', '1')
      await world.settled('gate', 1)
      // The guard puts the table back at once, unless it cannot.
      await world.server.sh(
        `printf '#!/bin/sh\\nexit 1\\n' >/usr/local/sbin/nft; chmod +x /usr/local/sbin/nft`,
      )
      try {
        await world.server.exec(['/usr/sbin/nft', 'delete', 'table', 'inet', 'faasd'])
        await eventually('the gate is shut', async () => {
          assert.match(await world.platform.log(), /no connection is passed/)
        })
        const calling = world.call('gate', 1)
        await setTimeout(1_000)
        const { standbys, connections } = await world.stats('gate')
        assert.deepEqual({ standbys, passed: connections.passed }, { standbys: 1, passed: 0 })
        await world.server.exec(['rm', '/usr/local/sbin/nft'])
        const [call] = await calling
        assert.equal(call?.error, undefined)
        assert.ok(call && waitedBefore(call))
      } finally {
        await world.server.exec(['rm', '--force', '/usr/local/sbin/nft'])
      }
    })

    test('after kill -9 of faasd its standbys are replaced, and a call in flight is answered', async () => {
      const image = await handlerImage('orphan', talkingHandler('1'))
      await world.deploy('orphan', image, '--standby', '2')
      await world.settled('orphan', 2)
      const [taken] = await world.call('orphan', 1)
      await world.settled('orphan', 2)
      const before = await world.instances('orphan')
      const slow = world.call('orphan', 1, 1, '/slow')
      await eventually('the call is served', async () => {
        assert.equal((await world.stats('orphan')).connections.passed, 2)
      })
      const daemon = await world.daemonPid()
      await world.server.exec(['kill', '-KILL', String(daemon)])
      const [answer] = await slow
      assert.equal(answer?.error, undefined)
      assert.notEqual(answer?.token, taken?.token)
      await eventually('another faasd serves', async () => {
        assert.notEqual(await world.daemonPid(), daemon)
        await world.stats('orphan')
      })
      await world.settled('orphan', 2)
      assert.deepEqual(
        (await world.instances('orphan')).filter((id) => before.includes(id)),
        [],
      )
      assert.equal((await world.pids('orphan')).length, 2)
      assert.deepEqual(failed(await world.call('orphan', 4)), [])
    })
  })
}
