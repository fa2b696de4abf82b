import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { createClient } from './client.ts'
import { testName } from './fake-platform.ts'
import { createTransport } from './transport.ts'

/** A client of a server that answers each connection as `answer` does, once something has arrived. */
async function clientOf(context: TestContext, answer: (socket: Socket) => void) {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => answer(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  context.after(() => server.close())
  const { port } = server.address() as { port: number }
  return createClient({ transport: createTransport(`http://127.0.0.1:${port}`) })
}

const answerWith =
  (status: string, body: string) =>
  (socket: Socket): void => {
    const head = `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n`
    socket.end(head + body)
  }

const chunked = (type: string, body: string): string =>
  `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n`

test("the server's error keeps its code, message and hint", async (context) => {
  const body = '{"error":{"code":"FUNCTION_UNKNOWN","message":"no such","hint":"look"}}'
  const client = await clientOf(context, answerWith('404 Not Found', body))
  await assert.rejects(client.call('address', { name: 'one' }), {
    code: 'FUNCTION_UNKNOWN',
    message: 'no such',
    hint: 'look',
  })
})

test('a code that only a newer server knows is shown, not trusted', async (context) => {
  const client = await clientOf(
    context,
    answerWith('400 Bad', '{"error":{"code":"constructor","message":"new"}}'),
  )
  await assert.rejects(client.call('list', {}), { code: 'INTERNAL', message: 'new (constructor)' })
})

test('what is not faasd is named as such', async (context) => {
  for (const answer of [answerWith('200 OK', '<html>'), answerWith('502 Bad Gateway', '{}')]) {
    const client = await clientOf(context, answer)
    await assert.rejects(client.call('list', {}), { code: 'DAEMON_UNREACHABLE', message: /is not faasd/ })
  }
})

test('a connection that breaks before or within the answer is DAEMON_UNREACHABLE', async (context) => {
  const silent = await clientOf(context, (socket) => socket.destroy())
  await assert.rejects(silent.call('list', {}), { code: 'DAEMON_UNREACHABLE' })
  const cut = await clientOf(context, (socket) =>
    socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{'),
  )
  await assert.rejects(cut.call('list', {}), { code: 'DAEMON_UNREACHABLE' })
})

test('logs that break off give their lines, then DAEMON_UNREACHABLE', async (context) => {
  const client = await clientOf(context, (socket) =>
    socket.end(chunked('application/x-ndjson', '{"text":"one"}\n{"te')),
  )
  const texts: string[] = []
  const reading = async () => {
    for await (const { text } of client.logs('one', { follow: true })) texts.push(text)
  }
  await assert.rejects(reading, { code: 'DAEMON_UNREACHABLE' })
  assert.deepEqual(texts, ['one'])
})

test('a deploy whose answer ends without a result has failed', async (context) => {
  const steps = `${chunked('application/x-ndjson', '{"step":"unpack","message":"x"}\n')}0\r\n\r\n`
  const client = await clientOf(context, (socket) => socket.end(`HTTP/1.1 100 Continue\r\n\r\n${steps}`))
  await assert.rejects(client.deploy(testName('one'), bytes()), {
    code: 'DAEMON_UNREACHABLE',
    message: /cut short/,
  })
})

test("the archive's own failure is what a deploy ends with", async (context) => {
  const client = await clientOf(context, (socket) => socket.write('HTTP/1.1 100 Continue\r\n\r\n'))
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.from('x')
    throw Object.assign(new Error('docker is ill'), { code: 'EILL' })
  }
  await assert.rejects(client.deploy(testName('one'), failing()), /docker is ill/)
})

async function* bytes(): AsyncGenerator<Uint8Array> {
  yield Buffer.from('x')
}
