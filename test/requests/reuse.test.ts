/** Images of the `fd` contract that ask for the next connection, the honest and the hostile. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { createWorld, handlerImage, runtimes, talkingHandler, type World } from './fd-world.ts'

/**
 * Answers, and then does with its control socket what the path says: `/flood` writes 1 MB, `/wrong` another byte than
 * `n`, `/keep` nothing, `/back` sends descriptors back with each byte, its unanswered connection among them, `/lie` asks
 * for the next connection and goes on holding this one, `/close` closes it.
 */
const hostileHandler = `
import array, os, socket, time
control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
control.connect("/control.sock")
token = os.urandom(8).hex()
waits_since = time.monotonic_ns() / 1e6
held = []
turn = 0
while True:
    message, descriptors, _, _ = socket.recv_fds(control, 64, 1)
    if message != b"SOCKET":
        break
    turn += 1
    connection = socket.socket(fileno=descriptors[0])
    path = connection.recv(4096).split(b" ")[1]
    body = f'{{"token":"{token}","waitsSince":{waits_since},"turn":{turn},"version":"hostile"}}\\n'
    answer = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n{body}".encode()
    if path == b"/back":
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(50):
            socket.send_fds(control, [b"n"], [connection.fileno()] + [null] * 200)
        connection.close()
        time.sleep(1000)
    if path == b"/lie":
        held.append(connection)
        control.sendall(b"n")
        continue
    connection.sendall(answer)
    connection.close()
    if path == b"/flood":
        control.sendall(b"n" * 1000000)
    if path == b"/wrong":
        control.sendall(b"x")
    if path == b"/close":
        control.close()
    if path != b"/":
        time.sleep(1000)
    control.sendall(b"n")
`

for (const runtime of runtimes) {
  describe(`reuse under ${runtime}`, { timeout: 200_000 }, () => {
    let world: World
    before(async () => {
      world = await createWorld(runtime)
    })
    after(() => world?.[Symbol.asyncDispose]())

    const deploy = async (name: string, handler: string, ...options: readonly string[]): Promise<void> =>
      world.deploy(name, await handlerImage(name, handler), ...options)

    test('with --reuse one process serves 100 calls, one after another', async () => {
      await deploy('loop', talkingHandler('1', { reuse: true }), '--reuse', '--max', '1')
      const calls = await world.call('loop', 100, 4)
      assert.deepEqual(
        calls.filter(({ error }) => error !== undefined),
        [],
      )
      assert.equal(new Set(calls.map(({ token }) => token)).size, 1)
      const turns = calls.map(({ turn }) => turn).sort((a, b) => a - b)
      assert.deepEqual(
        turns,
        Array.from({ length: 100 }, (_, index) => index + 1),
      )
      assert.equal((await world.pids('loop')).length, 1)
      assert.equal((await world.stats('loop')).standbys, 1)
      await world.settled('loop', 0)
    })

    test('with --reuse several processes share many calls, and go when idle', async () => {
      await deploy('share', talkingHandler('1', { reuse: true }), '--reuse', '--max', '3', '--idle', '1s')
      const calls = await world.call('share', 200, 20)
      assert.deepEqual(
        calls.filter(({ error }) => error !== undefined),
        [],
      )
      const processes = new Set(calls.map(({ token }) => token)).size
      assert.ok(processes >= 1 && processes <= 3, `${processes} processes`)
      await world.settled('share', 0)
    })

    test('without --reuse an image that asks is ended by the closed control socket', async () => {
      await deploy('once', talkingHandler('1', { reuse: true }))
      const calls = await world.call('once', 3)
      assert.deepEqual(
        calls.map(({ error, turn }) => ({ error, turn })),
        Array(3).fill({ error: undefined, turn: 1 }),
      )
      await world.settled('once', 0)
    })

    test('with --reuse an image that only exits works as before', async () => {
      await deploy('exits', talkingHandler('1'), '--reuse')
      const calls = await world.call('exits', 3)
      assert.deepEqual(
        calls.map(({ error, turn }) => ({ error, turn })),
        Array(3).fill({ error: undefined, turn: 1 }),
      )
      await world.settled('exits', 0)
    })

    test('a new version ends instances that were used before', async () => {
      await deploy('renew', talkingHandler('1', { reuse: true }), '--reuse', '--standby', '1')
      const [first] = await world.call('renew', 1)
      assert.equal(first?.version, '1')
      await world.deploy(
        'renew',
        await handlerImage('renew', talkingHandler('2', { reuse: true })),
        '--reuse',
      )
      const calls = await world.call('renew', 5)
      assert.deepEqual(
        calls.map(({ version }) => version),
        Array(5).fill('2'),
      )
    })

    test('what a hostile image does at its control socket ends it and harms nobody else', async () => {
      await deploy('honest', talkingHandler('1', { reuse: true }), '--reuse')
      await deploy('hostile', hostileHandler, '--reuse', '--timeout', '2s', '--max', '4', '--idle', '1s')
      await world.settled('honest', 0)
      const daemon = await world.daemonPid()
      const look = async () => ({
        descriptors: Number(await world.server.sh(`ls /proc/${daemon}/fd | wc -l`)),
        rssKb: Number(await world.server.sh(`awk '/^VmRSS/ {print $2}' /proc/${daemon}/status`)),
      })
      const before = await look()
      for (const path of ['/flood', '/wrong', '/keep', '/close', '/back', '/lie']) {
        // What was not answered has ended: nobody holds a caller much longer than the function may take.
        const isAnswered = path !== '/back' && path !== '/lie'
        // One at a time where an instance breaks the protocol: the connection that it then has is lost with it.
        const calls = await world.call('hostile', isAnswered ? 1 : 3, 3, path)
        assert.deepEqual(
          calls.filter(({ error }) => (error === undefined) !== isAnswered),
          [],
          path,
        )
        const [honest] = await world.call('honest', 1)
        assert.equal(honest?.error, undefined)
        await world.settled('hostile', 0)
      }
      const calls = await world.call('hostile', 10)
      assert.deepEqual(
        calls.filter(({ error }) => error !== undefined),
        [],
      )
      await world.settled('hostile', 0)
      await world.settled('honest', 0)
      await eventually('faasd holds no more descriptors than before', async () => {
        assert.ok((await look()).descriptors <= before.descriptors)
      })
      assert.ok((await look()).rssKb < before.rssKb + 50_000)
      assert.equal(await world.daemonPid(), daemon)
    })
  })
}
