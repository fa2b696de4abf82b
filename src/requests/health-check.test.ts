import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { connectTcp } from '../host/native/sockets.ts'
import { askHealth, askUntilHealthy } from './health-check.ts'

/** A TCP server on `::1`; answers how to connect to it. */
async function serve(context: TestContext, onConnection: (socket: Socket) => void) {
  const server = createServer(onConnection).listen(0, '::1')
  await once(server, 'listening')
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => sockets.add(socket.on('error', () => {})))
  context.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return () => connectTcp({ address: '::1', port })
}

const answering = (text: string) => (socket: Socket) => void socket.once('data', () => socket.end(text))
const question = (signal = AbortSignal.timeout(10_000)) => ({
  host: 'app.faas',
  path: '/healthz?a=1',
  signal,
})

for (const [text, healthy, words] of [
  ['HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', true, /answered 200/],
  ['HTTP/1.0 204\r\n\r\n', true, /answered 204/],
  ['HTTP/1.1 503 warming up\r\n\r\n', false, /answered 503/],
  ['HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n', false, /answered 301/],
  ['SSH-2.0-OpenSSH_9.2\r\n', false, /did not answer in HTTP\/1/],
  ['x'.repeat(10_000), false, /did not answer in HTTP\/1/],
  ['HTTP/1.1 2', false, /closed the connection/],
  ['', false, /closed the connection/],
] as const) {
  test(`askHealth() of a server that says ${JSON.stringify(text.slice(0, 20))} says so`, async (context) => {
    const connect = await serve(context, answering(text))
    const answer = await askHealth(connect(), question())
    assert.equal(answer.healthy, healthy)
    assert.match(answer.words, words)
  })
}

test('askHealth() sends one GET, with the function as its host, and closes', async (context) => {
  let seen = ''
  const { promise: closed, resolve } = Promise.withResolvers<void>()
  const connect = await serve(context, (socket) => {
    socket.on('data', (part) => {
      seen += part.toString()
      if (seen.includes('\r\n\r\n')) socket.write('HTTP/1.1 200 OK\r\n\r\nand more, for ever')
    })
    socket.on('close', () => resolve())
  })
  assert.ok((await askHealth(connect(), question())).healthy)
  await closed
  assert.match(seen, /^GET \/healthz\?a=1 HTTP\/1\.1\r\nHost: app\.faas\r\n/)
  assert.equal(seen.match(/\r\n\r\n/g)?.length, 1)
})

test('askHealth() of a status line in pieces waits for the whole of it', async (context) => {
  const pieces = ['HT', 'TP/1.1 2', '00 O', 'K\r\n\r\n']
  const connect = await serve(context, (socket) => {
    const timer = setInterval(() => {
      const piece = pieces.shift()
      if (piece === undefined) clearInterval(timer)
      else socket.write(piece)
    }, 5)
  })
  assert.ok((await askHealth(connect(), question())).healthy)
})

test('askHealth() of a server that says nothing ends with its signal', async (context) => {
  const connect = await serve(context, () => {})
  const answer = await askHealth(connect(), question(AbortSignal.timeout(50)))
  assert.deepEqual(answer, { healthy: false, words: 'did not answer' })
})

test('askHealth() of a connection that is refused says so', async () => {
  const server = createServer().listen(0, '::1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  const answer = await askUntilHealthy(
    () => connectTcp({ address: '::1', port }),
    question(AbortSignal.timeout(150)),
  )
  assert.equal(answer.healthy, false)
  assert.match(answer.words, /ECONNREFUSED/)
})

test('askUntilHealthy() asks again until the answer is right', async (context) => {
  let asked = 0
  const connect = await serve(context, (socket) => {
    asked++
    answering(`HTTP/1.1 ${asked < 3 ? 503 : 200} x\r\n\r\n`)(socket)
  })
  assert.deepEqual(await askUntilHealthy(connect, question()), { healthy: true, words: 'answered 200' })
  assert.equal(asked, 3)
})

test('askUntilHealthy() past its time tells the last answer there was', async (context) => {
  let asked = 0
  const connect = await serve(context, (socket) => {
    if (asked++ === 0) answering('HTTP/1.1 500 no\r\n\r\n')(socket)
  })
  const answer = await askUntilHealthy(connect, question(AbortSignal.timeout(400)))
  assert.deepEqual(answer, { healthy: false, words: 'answered 500' })
})
