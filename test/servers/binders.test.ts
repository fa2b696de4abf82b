/**
 * Every way in which servers come to their listener, on every runtime: the function serves, and what it binds besides
 * stays inside.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import type { ImageConfigInput } from '../images/archive.ts'
import { binderImage, nginxServer } from './images.ts'
import { createPlace, deviceAddress, missingRuntime, type Place, runtimes } from './place.ts'

/** What programs/binder.py answers. */
interface Seen {
  readonly mode: string
  readonly pid: number
  readonly peer: string
  readonly uid: number
  readonly generation?: number
  readonly datagram?: string
  readonly second?: string
  readonly unix?: string
}

interface BinderCase {
  readonly title: string
  readonly mode: string
  readonly config?: ImageConfigInput
  readonly ports?: readonly string[]
  /** A server that knows its socket as IPv4 reads a truncated address. */
  readonly seesPeer?: false
  readonly more?: (place: Place, name: string) => Promise<void>
}

const ask = async (place: Place, name: string): Promise<Seen> => JSON.parse(await place.get(name)) as Seen

/** Calls until as many processes as that have answered. */
const answersFrom = (processes: number) => async (place: Place, name: string) => {
  const pids = new Set<number>()
  await eventually(
    `${processes} processes answer`,
    async () => {
      pids.add((await ask(place, name)).pid)
      assert.ok(pids.size >= processes, `${pids.size} have`)
    },
    { timeoutMs: 30_000 },
  )
}

/** What listens at the function's address, of TCP and UDP, as `ss` has it: backlog and port of each. */
async function listening(
  place: Place,
  name: string,
): Promise<{ readonly backlog: number; readonly port: number }[]> {
  const { ip } = await place.describe(name)
  const output = await place.lab.server.sh(`ss --no-header --numeric --listening --tcp --udp src '[${ip}]'`)
  return output
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const fields = line.trim().split(/\s+/)
      return { backlog: Number(fields[3]), port: Number(fields[4]?.split(':').at(-1)) }
    })
}

async function onlyPort80(place: Place, name: string): Promise<void> {
  assert.deepEqual([...new Set((await listening(place, name)).map(({ port }) => port))], [80])
}

const cases: readonly BinderCase[] = [
  { title: 'one that binds 0.0.0.0 only', mode: 'ipv4', seesPeer: false },
  { title: 'one that binds :: for IPv6 only', mode: 'ipv6' },
  { title: 'one that binds :: for both', mode: 'dual' },
  { title: 'one that binds 0.0.0.0 and then ::, in one process', mode: '4-then-6' },
  { title: 'one that listens on 0.0.0.0 and then on ::', mode: '4-listening-then-6' },
  { title: 'one that binds :: and then 0.0.0.0', mode: '6-then-4' },
  { title: 'one that binds 127.0.0.1: the port decides', mode: 'loopback', seesPeer: false },
  { title: 'one that tries other ports first', mode: 'other-first' },
  { title: 'one whose workers inherit the listener', mode: 'fork', more: answersFrom(2) },
  {
    title: 'one whose workers each bind with SO_REUSEPORT',
    mode: 'reuse-port',
    more: answersFrom(2),
  },
  { title: 'one that binds its port twice', mode: 'twice' },
  { title: 'one that hands its listener on through exec', mode: 'exec' },
  {
    title: 'one that asks for a queue of 1, and does not shorten the one that all share',
    mode: 'backlog-1',
    async more(place, name) {
      for (const { backlog } of await listening(place, name)) assert.ok(backlog > 100, String(backlog))
    },
  },
  {
    title: 'one that binds its port again at a reload',
    mode: 'rebind',
    async more(place, name) {
      for (const generation of [2, 3]) {
        await place.lab.server.exec(['kill', '-HUP', String(await place.initOf(name))])
        await eventually(`generation ${generation} answers`, async () =>
          assert.equal((await ask(place, name)).generation, generation),
        )
      }
    },
  },
  {
    title: 'one of another user, at a port below 1024',
    mode: 'dual',
    config: { User: 'app', ExposedPorts: { '443/tcp': {} } },
    more: async (place, name) => assert.equal((await ask(place, name)).uid, 1000),
  },
  {
    title: 'one that also binds the port for UDP, which stays inside',
    mode: 'udp',
    async more(place, name) {
      assert.equal((await ask(place, name)).datagram, 'inside')
      await onlyPort80(place, name)
    },
  },
  {
    title: 'one that binds UNIX sockets when it has its port',
    mode: 'unix',
    more: async (place, name) => assert.equal((await ask(place, name)).unix, 'second 0, second 0, True'),
  },
  {
    title: 'one with a second TCP port, which stays inside',
    mode: 'second-port',
    async more(place, name) {
      assert.equal((await ask(place, name)).second, 'second')
      await onlyPort80(place, name)
      await assert.rejects(place.talk(name, 9999, ''))
    },
  },
  {
    title: 'one with a second TCP port that is published',
    mode: 'second-port',
    ports: ['80:8080', '9000:9999'],
    async more(place, name) {
      assert.equal(await place.talk(name, 9000, ''), 'second')
      // The listener is the host's: nobody reaches it by the container's own loopback.
      assert.equal((await ask(place, name)).second, 'ConnectionRefusedError')
    },
  },
]

const plainImage = binderImage()
const imageOf = (config: ImageConfigInput | undefined): Promise<string> =>
  config === undefined ? plainImage : binderImage(config)

for (const runtime of runtimes) {
  describe(`a server on ${runtime}`, { concurrency: 4, skip: missingRuntime(runtime) }, () => {
    let place: Place
    before(async () => {
      place = await createPlace(runtime)
    })
    after(() => place[Symbol.asyncDispose]())

    for (const [index, { title, mode, config, ports = [], seesPeer = true, more }] of cases.entries()) {
      test(`serves: ${title}`, async () => {
        const name = `binder-${index}`
        const { contract } = await place.post(name, await imageOf(config), [
          ['env', `MODE=${mode}`],
          ...ports.map((port) => ['port', port] as const),
        ])
        assert.equal(contract, 'listen')
        for (let call = 0; call < 2; call++) {
          const seen = await ask(place, name)
          assert.equal(seen.mode, mode)
          if (seesPeer) assert.equal(seen.peer, deviceAddress)
        }
        await more?.(place, name)
        await place.remove(name)
      })
    }

    test('that binds another port than it was told is refused with the option that helps, and serves with it', async () => {
      const archive = await imageOf(undefined)
      const mode = ['-e', 'MODE=other-port']
      assert.match(
        await place.deployFails('stubborn', archive, ...mode, '--connect-timeout', '2s'),
        /listen on port 8080.*FUNCTION_NOT_PROVEN[\s\S]*--port 3000/,
      )
      await place.deploy('stubborn', archive, ...mode, '--port', '3000')
      assert.equal((await ask(place, 'stubborn')).peer, deviceAddress)
      await place.remove('stubborn')
    })

    test('goes on serving when it is nginx that reloads', async () => {
      await place.deploy('reloaded', await nginxServer())
      const answer = `nginx 1 ${deviceAddress}\n`
      assert.equal(await place.get('reloaded'), answer)
      const init = await place.initOf('reloaded')
      const workers = async () => (await place.lab.server.sh(`pgrep --parent ${init}`)).trim().split('\n')
      const before = await workers()
      await place.lab.server.exec(['kill', '-HUP', String(init)])
      await eventually('nginx has other workers', async () => {
        assert.ok((await workers()).every((pid) => !before.includes(pid)))
      })
      for (let call = 0; call < 5; call++) assert.equal(await place.get('reloaded'), answer)
      await place.remove('reloaded')
    })
  })
}
