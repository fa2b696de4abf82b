/** The `fd` contract from both of its ends: what clients see, and what instances get and may use. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { eventually } from '../../src/host/eventually.ts'
import { requestMany, requestOne } from './clients.ts'
import { actionsImage } from './images.ts'
import { errorCodeOf, type Platform, runtimes, skipReason, startPlatform } from './platform.ts'

/** How a connection ends that faasd resets, or whose instance is ended. */
const cutOff = ['ECONNRESET', 'closed', 'EPIPE']

for (const runtime of runtimes) {
  test(`the fd contract holds, with ${runtime}`, { skip: skipReason(runtime) }, async (t) => {
    await using platform = await startPlatform({ runtime })
    const { device } = platform.lab
    const step = (name: string, body: (t: TestContext) => Promise<void>) => platform.step(t, name, body)
    const peer = await platform.join(device, 'laptop')
    const archive = await actionsImage('1')
    const host = await platform.deployed('actions', archive, 'memory=128Mi&pids=24&tmp=16Mi')
    let connectsUntil = 0
    const sulking = await eventually('an image that stops to connect is deployed in time', async () => {
      connectsUntil = Math.ceil(Date.now() / 1000) + 10
      const query = `connect-timeout=1s&timeout=20s&env=CONNECT_UNTIL=${connectsUntil}`
      return platform.deployed('sulking', archive, query)
    })

    await step('the handler sees the device’s address in the tunnel as its peer', async () => {
      assert.equal((await requestOne(device, { host, path: '/peer' })).body, peer)
    })

    await step('P62 each request has a fresh /tmp and its own processes', async () => {
      for (let round = 0; round < 2; round++) {
        const { body } = await requestOne(device, { host, path: '/fresh' })
        assert.equal(body, 'files [] processes [1] pid 1')
      }
    })

    await step('the image’s and the deploy’s settings reach the process, and no privilege does', async () => {
      const other = await actionsImage('1', { user: 'app', workingDir: '/app' })
      const address = await platform.deployed('other', other, 'env=GREETING=hello%20there')
      const { body } = await requestOne(device, { host: address, path: '/process' })
      assert.match(body, /^Uid:\t1000\t1000\t1000\t1000$/m)
      assert.match(body, /^CapEff:\t0+$/m)
      assert.match(body, /^CapBnd:\t0+$/m)
      assert.match(body, /^NoNewPrivs:\t1$/m)
      assert.match(body, /^Seccomp:\t2$/m)
      assert.match(body, /^GREETING=hello there$/m)
      assert.match(body, /^FAAS_NAME=other$/m)
      assert.match(body, /^cwd=\/app$/m)
    })

    await step(
      '50 clients at once share 4 instances, one connection each, and all are answered',
      async () => {
        const address = await platform.deployed('few', archive, 'max=4&queue-timeout=60s')
        let most = 0
        const watching = watchInstances(platform, 'few', (count) => (most = Math.max(most, count)))
        const outcomes = await requestMany(device, { host: address, path: '/sleep/0.2', count: 50 })
        await watching.stop()
        assert.deepEqual(
          new Set(outcomes.map(({ end, body }) => `${end} ${body}`)),
          new Set(['answer slept']),
        )
        assert.ok(most <= 4, `${most} instances at once`)
        assert.equal(await passedOf(platform, 'few'), 50)
      },
    )

    if (runtime === 'runc')
      await step(
        'a connection that waits longer than the queue time is reset, and the busy one is not',
        async () => {
          const address = await platform.deployed('one', archive, 'max=1&queue-timeout=1s')
          const busy = requestOne(device, { host: address, path: '/sleep/6' })
          await eventually('it is busy', async () => assert.equal(await passedOf(platform, 'one'), 1))
          const outcomes = await requestMany(device, {
            host: address,
            path: '/version',
            count: 3,
            timeoutMs: 30_000,
          })
          assert.deepEqual(new Set(outcomes.map(({ end }) => end)), new Set(['ECONNRESET']))
          assert.equal((await busy).body, 'slept')
        },
      )

    await step(
      'P44 a handler that never answers is ended at its time limit, and its client with it',
      async () => {
        const address = await platform.deployed('silent', archive, 'timeout=3s')
        const [silent, leaked] = await Promise.all(
          ['/silent', '/leak'].map((path) => requestOne(device, { host: address, path, timeoutMs: 30_000 })),
        )
        for (const outcome of [silent, leaked]) assert.ok(cutOff.includes(outcome?.end ?? ''), outcome?.end)
        assert.ok((silent?.ms ?? 0) > 2_000, 'not before its time')
      },
    )

    await step('P50 a handler that ends without an answer closes its client’s connection', async () => {
      const outcome = await requestOne(device, { host, path: '/crash', timeoutMs: 20_000 })
      assert.ok(cutOff.includes(outcome.end), outcome.end)
      await eventually('its last words are in the log', async () =>
        assert.match(await platform.logsOf('actions'), /about to crash/),
      )
    })

    await step(
      'stdout and stderr reach `faas logs` and the daemon’s log, as the guide greps it',
      async () => {
        await requestOne(device, { host, path: '/words/hello' })
        await eventually('both lines are in both logs', async () => {
          assert.match(
            await platform.logsOf('actions'),
            /to stdout hello[\s\S]*to stderr hello|to stderr hello[\s\S]*to stdout hello/,
          )
          const lines = platform
            .log()
            .split('\n')
            .filter((line) => line.includes('Container stderr'))
          assert.ok(
            lines.some((line) => /^\[actions\/faas-actions-[0-9a-f]{8}\].*to stderr hello$/.test(line)),
          )
        })
      },
    )

    if (runtime === 'runc')
      await step('P57 100 MB of output harm neither the request nor the daemon', async () => {
        const address = await platform.deployed('loud', archive, 'timeout=90s')
        const daemon = await platform.pidOf('src/daemon/main.ts')
        const before = await residentMiB(platform, daemon)
        const outcome = await requestOne(device, {
          host: address,
          path: '/flood/100',
          timeoutMs: 90_000,
        })
        assert.equal(outcome.body, 'flooded')
        assert.ok((await residentMiB(platform, daemon)) - before < 64, 'its memory grew by 64 MiB')
        assert.ok(platform.log().length < 20_000_000, 'the log is bounded')
        await eventually('what was dropped is said', async () =>
          assert.match(await platform.logsOf('loud'), /lines dropped/),
        )
      })

    await step('P52 a memory hog is ended, and only its own connection', async () => {
      const neighbour = requestOne(device, { host, path: '/sleep/3' })
      const hog = await requestOne(device, { host, path: '/memory', timeoutMs: 25_000 })
      assert.ok(cutOff.includes(hog.end), hog.end)
      assert.equal((await neighbour).body, 'slept')
    })

    await step('P51 a fork bomb stops at its limit of processes', async () => {
      const { body } = await requestOne(device, { host, path: '/fork' })
      const [, count = ''] = /^forked (\d+), then errno 11$/.exec(body) ?? []
      assert.ok(Number(count) > 0 && Number(count) < 24, body)
    })

    await step('P22 /tmp holds what its limit says and no more', async () => {
      const { body } = await requestOne(device, { host, path: '/fill' })
      assert.equal(body, 'wrote 16 MiB, then errno 28')
    })

    await step(
      'P50 a handler that does not connect any more is ended in time, and its client reset',
      async () => {
        await delay(Math.max(0, connectsUntil * 1000 - Date.now()))
        const outcome = await requestOne(device, { host: sulking, path: '/version', timeoutMs: 20_000 })
        assert.equal(outcome.end, 'ECONNRESET')
        await eventually('the log says why', () =>
          assert.match(platform.log(), /did not connect to its control socket within 1000 ms/),
        )
      },
    )

    if (runtime === 'runc')
      await step(
        'a name that is being deployed is busy for others, and unknown options are refused',
        async () => {
          const [one, other] = await Promise.all([
            platform.deploy('busy', archive),
            platform.deploy('busy', archive),
          ])
          const codes = [one, other]
            .map((answer) => (answer.status === 200 ? 'ok' : errorCodeOf(answer)))
            .sort()
          assert.ok(
            codes.includes('ok') && codes.every((code) => code === 'ok' || code === 'FUNCTION_BUSY'),
            String(codes),
          )
          assert.equal(
            errorCodeOf(await platform.deploy('actions', archive, 'memory=lots')),
            'OPTION_INVALID',
          )
          assert.equal(errorCodeOf(await platform.deploy('actions', archive, 'colour=red')), 'OPTION_INVALID')
        },
      )

    await step('nothing is left of all these requests', async () => platform.invariants())
  })
}

interface Stats {
  readonly instances: number
  readonly connections: { readonly passed: number }
}

async function statsOf(platform: Platform, name: string): Promise<Stats> {
  return (await platform.api('GET', `/api/functions/${name}/stats`)).body as Stats
}

const passedOf = async (platform: Platform, name: string): Promise<number> =>
  (await statsOf(platform, name)).connections.passed

/** Tells the number of a function's instances from time to time. */
function watchInstances(
  platform: Platform,
  name: string,
  tell: (count: number) => void,
): { stop(): Promise<void> } {
  let stopped = false
  const watching = (async () => {
    while (!stopped) {
      tell((await statsOf(platform, name)).instances)
      await delay(200)
    }
  })()
  return {
    stop() {
      stopped = true
      return watching
    },
  }
}

async function residentMiB(platform: Platform, pid: number): Promise<number> {
  const status = await platform.server.sh(`grep VmRSS /proc/${pid}/status`)
  return Number(/(\d+) kB/.exec(status)?.[1]) / 1024
}
