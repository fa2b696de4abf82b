/** Deploy, redeploy and removal through the real API, with real archives, names and devices. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import type { ArchiveOptions } from '../images/archive.ts'
import { fibonacciImage } from '../images/build.ts'
import { requestOne, startRequestLoop } from './clients.ts'
import { actionsImage, brokenImage } from './images.ts'
import { errorCodeOf, errorTextOf, type Platform, runtimes, skipReason, startPlatform } from './platform.ts'

const dnsServer = 'fd00:faa5:0:100::1'

const forms: readonly (readonly [string, ArchiveOptions])[] = [
  ['of Docker before 25', { form: 'docker-legacy' }],
  ['since Docker 25', { form: 'docker' }],
  ['OCI with gzip layers', { form: 'oci', compression: 'gzip' }],
  ['OCI with zstd layers', { form: 'oci', compression: 'zstd' }],
]

for (const runtime of runtimes) {
  test(`the platform deploys, replaces and removes functions, with ${runtime}`, {
    skip: skipReason(runtime),
  }, async (t) => {
    await using platform = await startPlatform({ runtime })
    const step = (name: string, body: (t: TestContext) => Promise<void>) => platform.step(t, name, body)

    await step('a new platform lists no functions, and a device joins it by an invitation', async () => {
      assert.deepEqual((await platform.api('GET', '/api/list')).body, {})
      assert.equal(await platform.join(platform.lab.device, 'laptop'), 'fd00:faa5:0:100::a')
    })

    await step('the guide’s deploy answers the guide’s JSON, and the name resolves and answers', async () => {
      const { status, body } = await platform.deploy('fibonacci', await fibonacciImage())
      assert.equal(status, 200)
      // The guide's keys, first and in its order; behind them the contract that was found out, and the version.
      const guide = { name: 'fibonacci', ip: 'fd00:faa5:1::a', cmd: ['python3', '/app/handler.py'] }
      assert.equal(JSON.stringify(body), JSON.stringify({ ...guide, contract: 'fd', version: 1 }))
      assert.equal(await resolve(platform, 'fibonacci'), 'fd00:faa5:1::a')
      assert.equal(
        await platform.get('http://fibonacci.faas/?n=10'),
        'Fibonacci sequence (10 steps):\n0, 1, 1, 2, 3, 5, 8, 13, 21, 34\n',
      )
    })

    for (const [index, [form, options]] of forms.entries()) {
      // How an archive is read does not hang on the runtime: one form is enough for the second.
      if (runtime !== runtimes[0] && index < forms.length - 1) continue
      await step(`an archive ${form} is deployed`, async () => {
        const archive = await actionsImage(`form-${index}`, {}, options)
        const address = await platform.deployed('forms', archive)
        assert.equal(address, 'fd00:faa5:1::b', 'a redeploy keeps the address')
        assert.equal(await platform.get('http://forms.faas/version'), `form-${index}`)
      })
    }

    await step(
      'a version that does not work is refused with its last lines, and the old one goes on',
      async () => {
        for (const [why, archive, query, expected] of await brokenVersions()) {
          const answer = await platform.deploy('forms', archive, query)
          assert.notEqual(answer.status, 200, why)
          assert.match(`${errorCodeOf(answer)} ${errorTextOf(answer)}`, expected, why)
          assert.equal(await platform.get('http://forms.faas/version'), 'form-3', why)
        }
        await platform.invariants()
      },
    )

    await step('redeploys under a steady load fail no request', async () => {
      const versions = await Promise.all(['load-0', 'load-1'].map((version) => actionsImage(version)))
      const address = await platform.deployed('load', versions[0] ?? '')
      await using load = startRequestLoop(platform.lab.device, 'load.faas', '/version')
      const redeploys = runtime === runtimes[0] ? 10 : 4
      for (let count = 1; count <= redeploys; count++) {
        assert.equal(await platform.deployed('load', versions[count % 2] ?? ''), address)
      }
      const { answers, failures } = await load.stop()
      assert.deepEqual(failures, [])
      assert.deepEqual(Object.keys(answers).sort(), ['load-0', 'load-1'])
      t.diagnostic(`requests answered during ${redeploys} redeploys: ${JSON.stringify(answers)}`)
    })

    await step('after a redeploy is acknowledged no request sees the old version', async () => {
      for (const version of ['new-1', 'new-2']) {
        await platform.deployed('load', await actionsImage(version))
        assert.equal(await platform.get('http://load.faas/version'), version)
      }
    })

    await step('a removed function’s last request is answered; its name, address and files go', async () => {
      const address = await platform.deployed('leaving', await actionsImage('1'))
      const last = requestOne(platform.lab.device, { host: address, path: '/sleep/4' })
      await eventually('the request is with an instance', async () => {
        const { body } = await platform.api('GET', '/api/functions/leaving/stats')
        assert.equal((body as { connections: { passed: number } }).connections.passed, 1)
      })
      assert.equal((await platform.remove('leaving')).status, 200)
      assert.match(await digStatus(platform, 'leaving'), /NXDOMAIN/)
      assert.equal((await last).body, 'slept')
      await platform.invariants()
      assert.equal((await platform.api('GET', '/api/ip/leaving')).status, 404)
      assert.notEqual(await platform.deployed('next', await actionsImage('1')), address, 'the address rests')
    })

    await step('what functions there are is found by each call of the API', async () => {
      const { body } = await platform.api('GET', '/api/list')
      const list = body as Record<string, { ip: string; rootfs: string; cmd: string[] }>
      assert.deepEqual(Object.keys(list).sort(), ['fibonacci', 'forms', 'load', 'next'])
      assert.equal(list.fibonacci?.rootfs, '/var/lib/faasd/images/fibonacci/rootfs')
      await platform.server.sh('test -f /var/lib/faasd/images/fibonacci/rootfs/app/handler.py')
      assert.deepEqual((await platform.api('GET', '/api/ip/fibonacci')).body, {
        name: 'fibonacci',
        ip: 'fd00:faa5:1::a',
      })
      await platform.invariants()
    })
  })
}

async function brokenVersions(): Promise<readonly (readonly [string, string, string, RegExp])[]> {
  return [
    [
      'it never connects',
      await brokenImage('import time\nprint("waiting for nothing", flush=True)\ntime.sleep(60)'),
      'connect-timeout=2s',
      /FUNCTION_NOT_PROVEN.*within 2000 ms.*waiting for nothing/,
    ],
    [
      'it exits with 1',
      await brokenImage('import sys\nprint("no database", file=sys.stderr)\nsys.exit(1)'),
      '',
      /FUNCTION_NOT_PROVEN.*exit code 1.*no database/,
    ],
    ['it has no command', await brokenImage('', { cmd: [] }), '', /IMAGE_CONFIG_INVALID.*CMD/],
    [
      'its entrypoint is not there',
      await brokenImage('', { entrypoint: ['/no/such'] }),
      '',
      /RUNTIME_FAILED.*\/no\/such/,
    ],
    ['it is no archive', '/etc/hostname', '', /ARCHIVE_/],
  ]
}

async function resolve(platform: Platform, name: string): Promise<string> {
  return (await platform.lab.device.sh(`dig ${name}.faas AAAA @${dnsServer} +short`)).trim()
}

async function digStatus(platform: Platform, name: string): Promise<string> {
  return platform.lab.device.sh(`dig ${name}.faas AAAA @${dnsServer} | grep status`)
}
