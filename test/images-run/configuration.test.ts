/**
 * What an image's configuration says beside its command, on every runtime: variables and ports, the stop signal, the health
 * check; and what a deploy says about an image that its surroundings do not suit.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { createPlace, missingRuntime, type Place, runtimes } from '../servers/place.ts'
import { agentImage, ask } from './agent.ts'

const patience = { timeoutMs: 60_000, intervalMs: 300 }
const variables =
  'answer = [os.environ.get(name) for name in ["PORT", "FAAS_NAME", "FAAS_ADDRESS", "GREETING"]]'

for (const runtime of runtimes) {
  describe(`configuration of an image on ${runtime}`, {
    skip: missingRuntime(runtime),
    concurrency: 3,
  }, () => {
    let place: Place
    before(async () => {
      place = await createPlace(runtime)
    })
    after(() => place[Symbol.asyncDispose]())

    test('variables, ports, working directory, health check and stop signal of an image', async (t) => {
      const exposed = await agentImage([], {
        ExposedPorts: { '3000/tcp': {} },
        // Missing in the image: it is made, as Docker does.
        WorkingDir: '/srv/not/there',
        Healthcheck: { Test: ['CMD-SHELL', 'true'], Interval: 5_000_000_000, Retries: 2 },
        StopSignal: 'RTMIN+1',
        Env: ['STOP_WITH=35'],
      })
      const own = await agentImage([], {
        ExposedPorts: { '3000/tcp': {} },
        Env: ['PORT=5000', 'GREETING=hello', 'FAAS_NAME=forged'],
      })
      const { ip } = await place.deploy('config', exposed, '-e', 'GREETING=a b', '--idle', '1h')

      await t.test('PORT is the port that the image exposes', async () =>
        assert.deepEqual(await ask(place, 'config', variables), ['3000', 'config', ip, 'a b']),
      )

      await t.test('a working directory that the image lacks is made', async () =>
        assert.equal(await ask(place, 'config', 'answer = os.getcwd()'), '/srv/not/there'),
      )

      await t.test('HEALTHCHECK is kept with the image', async () => {
        const records = await place.lab.server.sh(
          `jq -c 'select(.config.healthcheck) | .config.healthcheck' /var/lib/faasd/store/images/*.json`,
        )
        const times = { intervalMs: 5000, timeoutMs: 30_000, startPeriodMs: 0, retries: 2 }
        assert.deepEqual(JSON.parse(records), { argv: ['/bin/sh', '-c', 'true'], ...times })
      })

      await t.test(
        "the image's own PORT comes before what it exposes, and is where it is called",
        async () => {
          await place.deploy('config', own)
          assert.deepEqual(await ask(place, 'config', variables), ['5000', 'config', ip, 'hello'])
        },
      )

      await t.test('the version before has been ended by the STOPSIGNAL of its image', () =>
        eventually(
          'it says so',
          async () => assert.match(await place.logs('config'), /stopped by signal 35$/m),
          patience,
        ),
      )

      await t.test("the deploy's PORT comes before all", async () => {
        await place.deploy('config', own, '-e', 'PORT=6000', '-e', 'GREETING=')
        assert.deepEqual(await ask(place, 'config', variables), ['6000', 'config', ip, ''])
      })
    })

    for (const { what, name, code, user, hint, options } of [
      {
        what: 'writes to its own files',
        name: 'writes',
        code: 'open("/app/state", "w")',
        hint: /Read-only file system.*--writable/s,
        options: ['--writable'],
      },
      {
        what: 'changes owners as a USER without the right',
        name: 'chowns',
        code: 'import os; os.chown("/tmp", 1000, 1000)',
        user: 'app',
        hint: /Operation not permitted.*USER/s,
      },
      {
        what: "writes to another user's directory",
        name: 'denied',
        code: 'open("/var/tmp/../../run/x", "w")',
        user: 'app',
        hint: /Permission denied.*USER/s,
      },
    ] as const) {
      test(`a deploy names the option that helps an image which ${what}`, async () => {
        const script = `${code}; exec(open("/app/agent.py").read())`
        const image = await agentImage([], {
          Cmd: ['python3', '-c', script],
          ...(user ? { User: user } : {}),
        })
        assert.match(await place.deployFails(name, image), hint)
        if (!options) return
        await place.deploy(name, image, ...options)
        assert.equal(await ask(place, name, 'answer = os.path.exists("/app/state")'), true)
        await place.remove(name)
      })
    }
  })
}
