/**
 * Images that misbehave on the `listen` contract, on every runtime: a deploy that cannot work fails with the image's last
 * words while the old version serves, a function that goes wrong later hurts nobody but itself, and a good version heals it.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { badImage, binderImage } from './images.ts'
import { createPlace, missingRuntime, type Place, runtimes } from './place.ts'

/** curl's exit code when nothing has come in time. */
const timedOut = 28
/** A neighbour that is healthy answers well within this, however busy the machine is. */
const neighbourSeconds = 20

const soon = ['--connect-timeout', '3s']
const sleepsSoon = ['--pause', '1s', '--idle', '1s']
const good = binderImage()
const bad = badImage()

for (const runtime of runtimes) {
  describe(`an image that misbehaves on ${runtime}`, {
    concurrency: 4,
    skip: missingRuntime(runtime),
  }, () => {
    let place: Place
    before(async () => {
      place = await createPlace(runtime)
      await deployGood('neighbour')
    })
    after(() => place[Symbol.asyncDispose]())

    const deployGood = async (name: string) => place.post(name, await good, [['env', 'MODE=dual']])
    const deployBad = async (mode: string, ...options: string[]) =>
      place.deploy(mode, await bad, '-e', `MODE=${mode}`, ...options)
    const neighbourServes = async () =>
      assert.equal((await place.tryGet('neighbour', neighbourSeconds)).code, 0, 'the neighbour answers')

    for (const { title, mode, expected } of [
      {
        title: 'never binds',
        mode: 'never-bind',
        expected: /did not .*listen on port 8080 within 3000 ms; its last lines: about to never-bind/,
      },
      {
        title: 'crashes on start',
        mode: 'crash',
        expected: /ended with exit code 3 .*its last lines: .*cannot read \/etc\/app\.conf/,
      },
      {
        title: 'binds and never listens',
        mode: 'bind-only',
        expected: /did not .*listen on port 8080 within 3000 ms/,
      },
      {
        title: 'goes to the background and leaves',
        mode: 'daemonize',
        expected: /ended with exit code 0 and did not .*listen on port 8080/,
      },
    ]) {
      test(`that ${title} fails its deploy with its last lines, and the old version serves`, async () => {
        await deployGood(mode)
        const words = await place.deployFails(mode, await bad, '-e', `MODE=${mode}`, ...soon)
        assert.match(words, expected)
        assert.match(words, /FUNCTION_NOT_PROVEN/)
        assert.match(await place.get(mode), /"mode": "dual"/)
        await place.remove(mode)
      })
    }

    for (const { title, mode } of [
      { title: 'binds and never accepts', mode: 'never-accept' },
      { title: 'closes its listener', mode: 'close' },
      { title: 'shuts its listener down', mode: 'shutdown' },
      { title: 'holds its connections and never answers', mode: 'hold' },
    ]) {
      test(`that ${title} hurts only its own callers, and a good version heals it`, async () => {
        await deployBad(mode, '--max', '2', '--timeout', '2s', ...sleepsSoon)
        const calls = await Promise.all([1, 2, 3].map(() => place.tryGet(mode, 4)))
        for (const { code } of calls) assert.notEqual(code, 0)
        await neighbourServes()
        assert.ok((await place.describe(mode)).instances <= 2)
        await deployGood(mode)
        await eventually(`${mode} is healed`, async () => assert.match(await place.get(mode), /"dual"/), {
          timeoutMs: 60_000,
          intervalMs: 500,
        })
        await place.remove(mode)
        await neighbourServes()
      })
    }

    test('that shuts its listener down later is healed by its next instance', async () => {
      const name = 'shutdown-later'
      await deployBad(name, ...sleepsSoon)
      assert.equal((await place.tryGet(name, 20)).stdout, 'served')
      await eventually(
        `${name} serves again`,
        async () => assert.equal((await place.tryGet(name, 5)).stdout, 'served'),
        { timeoutMs: 60_000, intervalMs: 500 },
      )
      await place.remove(name)
    })

    test('that crashes at each start is not started without end, says so, and a good version heals it', async () => {
      const name = 'crash-loop'
      await deployBad(name)
      for (let call = 0; call < 5; call++) {
        const { code } = await place.tryGet(name, 40)
        assert.ok(code !== 0 && code !== timedOut, `curl ended with ${code}`)
      }
      await place.reaches(name, 'failing')
      const log = await place.logs(name)
      assert.match(log, /stderr: no database/)
      assert.match(log, /platform: an instance did not listen on port 8080/)
      const starts = async () => (await place.logs(name)).split('about to crash-loop').length - 1
      const begin = performance.now()
      const before = await starts()
      while (performance.now() - begin < 4_000) await place.tryGet(name, 1)
      // 200 ms, doubled each time: in 4 s at most 5 more, wherever in the row it stands.
      assert.ok((await starts()) - before <= 6, `${(await starts()) - before} starts in 4 s`)
      await neighbourServes()
      await deployGood(name)
      await eventually(`${name} is healed`, async () => assert.match(await place.get(name), /"dual"/), {
        timeoutMs: 60_000,
        intervalMs: 500,
      })
      await place.remove(name)
    })

    test('that ends at each request fails that request, and is started again for the next', async () => {
      const name = 'crash-on-request'
      await deployBad(name)
      for (let call = 0; call < 3; call++) {
        const { code } = await place.tryGet(name, 40)
        assert.ok(code !== 0 && code !== timedOut, `curl ended with ${code}`)
      }
      await neighbourServes()
      await place.remove(name)
    })
  })
}
