/**
 * The daemon dies by SIGKILL at each step of a deploy (docs/ARCHITECTURE.md), and is started again: up to the commit
 * the version before is there, from the commit on the new one, and nothing else is left either way. Needs root.
 */
import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { keptVersions, versionsOf } from '../../src/functions/function.ts'
import { parseRegistry, type RegistryContent } from '../../src/functions/registry.ts'
import { eventually } from '../../src/host/eventually.ts'
import type { FaasError } from '../../src/values/errors.ts'
import { createLab } from '../machines/lab.ts'
import type { Machine } from '../machines/machine.ts'
import { startedLine, startPlatform } from '../machines/platform.ts'
import { clientOf, deploy, getText, serverArchive, urlOf } from './platform-api.ts'

const commit = 9
const waitMs = { timeoutMs: 30_000 }

suite('kill -9 at the steps of a deploy', { concurrency: 2 }, () => {
  test('F1 to F8: before the commit the old version stays', (context) => killAt(context, 1, 8))
  test('F9 to F15: from the commit on the new version comes', (context) => killAt(context, 9, 15))
})

async function killAt(context: TestContext, first: number, last: number): Promise<void> {
  await using lab = await createLab({ devices: 0 })
  const { server } = lab
  const failpoints = join(server.directory, 'failpoints')
  // A daemon reads the file when it starts: the one that is started after a death finds what comes next.
  await writeFile(failpoints, `D${first}:1*off->1*kill`)
  await using platform = await startPlatform(server, { env: { FAASD_FP: `@${failpoints}` } })
  const client = clientOf(server)
  const points = Array.from({ length: last - first + 1 }, (_, index) => first + index)
  const archive = await serverArchive('d0', ...points.map((point) => `d${point}`))
  const options = { contract: 'fd', env: 'CONTRACT=fd', idle: '500ms', 'connect-timeout': '30s' }
  const { ip } = await deploy(client, 'app', archive, { ...options, image: 'server:d0' })

  let expected = { answer: 'd0', versions: [1] }
  for (const point of points) {
    await context.test(`F${point}: kill -9 at D${point}`, async () => {
      await writeFile(failpoints, point === last ? '' : `D${point + 1}:1*kill`)
      const starts = await countStarts(platform)
      const isAnswered = await deploy(client, 'app', archive, { ...options, image: `server:d${point}` }).then(
        () => true,
        (error: FaasError) => {
          assert.equal(error.code, 'DAEMON_UNREACHABLE', error.message)
          return false
        },
      )
      await eventually(
        'faasd has died and is started again',
        async () => assert.equal(await countStarts(platform), starts + 1),
        waitMs,
      )
      assert.ok(!isAnswered || point >= commit, 'an answer of 200 means that it is committed')
      if (point >= commit) {
        const [newest = 0] = expected.versions
        expected = {
          answer: `d${point}`,
          versions: [newest + 1, ...expected.versions].slice(0, keptVersions),
        }
      }
      assert.equal(await getText(server, urlOf(ip)), expected.answer)
      const versions = await client.call('versions', { name: 'app' })
      assert.deepEqual(
        versions.map(({ version }) => version),
        expected.versions,
      )
      await eventually('nothing else is left', () => checkState(server), waitMs)
    })
  }
  const afterwards = await deploy(client, 'app', archive, { ...options, image: 'server:d0' })
  assert.equal(afterwards.version, (expected.versions[0] ?? 0) + 1)
  assert.equal(await getText(server, urlOf(ip)), 'd0')
}

const countStarts = async (platform: { log(): Promise<string> }): Promise<number> =>
  (await platform.log()).split(startedLine).length - 1

/** What is derived is what the registry says, and there is nothing beside it. */
async function checkState(server: Machine): Promise<void> {
  const root = join(server.directory, 'faasd')
  const registry = parseRegistry(await readFile(join(root, 'registry.json'), 'utf8'))
  const records = [...registry.functions.values()]
  const sorted = (list: Iterable<string>): string[] => [...new Set(list)].sort()

  const addresses = await server.sh(
    "ip -6 -o addr show dev wg0 | awk '{print $4}' | grep ^fd00:faa5:1: || true",
  )
  assert.deepEqual(
    sorted(addresses.split('\n').filter(Boolean)),
    sorted(records.map(({ address }) => `${address}/128`)),
    'addresses',
  )
  const listeners = await server.sh("ss -Htln | awk '{print $4}' | grep '^\\[fd00:faa5:1:' || true")
  assert.deepEqual(
    sorted(listeners.split('\n').filter(Boolean)),
    sorted(records.flatMap(({ address, ports }) => ports.map(({ port }) => `[${address}]:${port}`))),
    'listeners',
  )
  const zone = await readFile(join(root, 'dns', 'faas.db'), 'utf8')
  for (const [name, { address }] of registry.functions)
    assert.match(zone, new RegExp(`^${name}\\b.*AAAA\\s+${address}$`, 'm'))
  await checkImages(root, registry)
  const mounts = await readFile(`/proc/${server.pid}/mountinfo`, 'utf8')
  assert.deepEqual(
    sorted([...mounts.matchAll(/ \/var\/lib\/faasd\/images\/(\S+) /g)].map(([, path = '']) => path)),
    sorted(
      [...registry.functions].map(([name, { image }]) => `${name}/versions/${image.slice(7, 19)}/rootfs`),
    ),
    'mounted roots',
  )
  assert.deepEqual(await readdir(join(root, 'bundles')), [], 'bundles')
  assert.equal(await server.sh('ls /run/faasd/i'), '', 'directories of instances')
}

async function checkImages(root: string, { functions }: RegistryContent): Promise<void> {
  const wanted = new Set(
    [...functions.values()].flatMap((record) => versionsOf(record).map(({ image }) => image)),
  )
  const files = await readdir(join(root, 'store', 'images'))
  assert.deepEqual(files.sort(), [...wanted].map((image) => `${image.slice(7)}.json`).sort(), 'images')
  const texts = await Promise.all(files.map((file) => readFile(join(root, 'store', 'images', file), 'utf8')))
  const layers = await readdir(join(root, 'store', 'layers'))
  for (const layer of layers)
    assert.ok(
      texts.some((text) => text.includes(layer)),
      `layer ${layer}`,
    )
  assert.deepEqual(await readdir(join(root, 'store', 'staging')), [], 'staging')
}
