/** HTTP as it should not be, and uploads that go wrong, on real sockets: B04 to B06, B61, B67 to B70. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { testName } from '../../src/api/fake-platform.ts'
import { eventually } from '../../src/host/eventually.ts'
import { FaasError } from '../../src/values/errors.ts'
import { codeOf, exchange, serve, statusOf } from './serve.ts'

const lines = (...text: string[]): string => `${text.join('\r\n')}\r\n\r\n`
const summary = (answer: string): string => `${statusOf(answer)} ${codeOf(answer)}`

for (const [what, head, expected] of [
  ['a double slash', 'POST //api/new HTTP/1.1', '404 NOT_FOUND'],
  ['a path with dots', 'POST /api/x/../new HTTP/1.1', '404 NOT_FOUND'],
  ['a slash at the end', 'GET /api/list/ HTTP/1.1', '404 NOT_FOUND'],
  ['the absolute form', 'GET http://localhost/api/list HTTP/1.1', '404 NOT_FOUND'],
  ['the asterisk form', 'OPTIONS * HTTP/1.1', '404 NOT_FOUND'],
  ['CONNECT', 'CONNECT localhost:22 HTTP/1.1', '405 METHOD_NOT_ALLOWED'],
  ['TRACE', 'TRACE /api/list HTTP/1.1', '405 METHOD_NOT_ALLOWED'],
  ['PUT', 'PUT /api/new HTTP/1.1', '405 METHOD_NOT_ALLOWED'],
  ['a method of its own', 'BREW /api/list HTTP/1.1', '405 METHOD_NOT_ALLOWED'],
  ['another protocol', 'GET /api/list HTTP/3.0', '400 REQUEST_INVALID'],
] as const) {
  test(`B67 ${what} is answered with ${expected}`, async (context) => {
    const { port } = await serve(context)
    assert.equal(summary(await exchange(port, lines(head, 'Host: localhost', 'Connection: close'))), expected)
  })
}

const post = ['POST /api/vpn/invite HTTP/1.1', 'Host: localhost', 'Content-Type: application/json']
const body = '{"name":"laptop"}'
for (const [what, text] of Object.entries({
  'both lengths': `${lines(...post, 'Content-Length: 5', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
  'two different lengths': lines(...post, 'Content-Length: 5', 'Content-Length: 17') + body,
  'two equal lengths': lines(...post, 'Content-Length: 17', 'Content-Length: 17') + body,
  'a signed length': lines(...post, 'Content-Length: +17') + body,
  'a length in hex': lines(...post, 'Content-Length: 0x11') + body,
  'a folded header': lines(...post, 'X-Folded: a\r\n b', 'Content-Length: 17') + body,
  'a space before the colon': lines(...post, 'Content-Length : 17') + body,
  'a NUL in a header': lines(...post, 'X-Null: a\0b', 'Content-Length: 17') + body,
  'bare line feeds': 'GET /api/list HTTP/1.1\nHost: localhost\n\n',
  'a chunk that is no number': `${lines(...post, 'Transfer-Encoding: chunked')}zz\r\n{}\r\n`,
  'an unknown coding': `${lines(...post, 'Transfer-Encoding: chunked, gzip')}0\r\n\r\n`,
  'headers without end': `GET /api/list HTTP/1.1\r\nHost: localhost\r\nX: ${'a'.repeat(100_000)}`,
  'a chunk extension of 10 MB': `${lines(...post, 'Transfer-Encoding: chunked')}1;${'a'.repeat(10_000_000)}\r\n{\r\n`,
  noise: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
})) {
  test(`B68 a request with ${what} is answered with 400 and the connection closed`, async (context) => {
    const { port } = await serve(context)
    assert.equal(summary(await exchange(port, Buffer.from(text, 'latin1'))), '400 REQUEST_INVALID')
  })
}

/** The connection stays open a moment longer, for the body: not waited for. */
const endOfError = { until: '}}\n' }

const deployHead = (name: string, ...more: string[]): string =>
  lines('POST /api/new HTTP/1.1', 'Host: localhost', `X-Image-Name: ${name}`, 'Connection: close', ...more)

test('B61 a name given twice is refused before the body', async (context) => {
  const { port } = await serve(context)
  const answer = await exchange(
    port,
    deployHead('one', 'X-Image-Name: two', 'Content-Length: 1000000'),
    endOfError,
  )
  assert.equal(summary(answer), '400 REQUEST_INVALID')
})

test('B61 a name of 8 KB is refused as a name', async (context) => {
  const { port } = await serve(context)
  assert.equal(
    summary(await exchange(port, deployHead('a'.repeat(8192), 'Content-Length: 5'))),
    '400 NAME_INVALID',
  )
})

test('B70 with Expect: 100-continue a bad name is refused without asking for the body', async (context) => {
  const { port } = await serve(context)
  const answer = await exchange(
    port,
    deployHead('Bad_Name', 'Expect: 100-continue', 'Content-Length: 1000000'),
  )
  assert.equal(summary(answer), '400 NAME_INVALID')
  assert.doesNotMatch(answer, /100 Continue/)
})

test('B70 what the platform refuses at once costs no upload either', async (context) => {
  const { port } = await serve(context, {
    platform: {
      deploy: async () => {
        throw new FaasError('FUNCTION_BUSY', 'it is being deployed')
      },
    },
  })
  const answer = await exchange(
    port,
    deployHead('one', 'Expect: 100-continue', 'Content-Length: 1000000'),
    endOfError,
  )
  assert.equal(summary(answer), '409 FUNCTION_BUSY')
  assert.doesNotMatch(answer, /100 Continue/)
})

test('with Expect: 100-continue the body is asked for once, and taken', async (context) => {
  const { port, platform } = await serve(context)
  for (const accept of ['*/*', 'application/x-ndjson']) {
    const socket = connect({ port, host: '127.0.0.1' }).setEncoding('utf8')
    socket.write(deployHead('one', 'Expect: 100-continue', 'Content-Length: 7', `Accept: ${accept}`))
    const [first] = (await once(socket, 'data')) as [string]
    assert.match(first, /^HTTP\/1\.1 100 Continue\r\n\r\n/)
    socket.write('archive')
    let rest = first
    for await (const chunk of socket) rest += chunk as string
    assert.equal(rest.match(/100 Continue/g)?.length, 1)
    assert.match(rest, /"ip":"fd00:faa5:1::a"/)
    assert.equal(platform.received.get(testName('one')), 7)
  }
})

test('B06 a chunked body without a length is taken', async (context) => {
  const { port, platform } = await serve(context)
  const answer = await exchange(
    port,
    `${deployHead('one', 'Transfer-Encoding: chunked')}5\r\nhello\r\n0\r\n\r\n`,
  )
  assert.equal(statusOf(answer), 200)
  assert.equal(platform.received.get(testName('one')), 5)
})

test('an error is readable although the whole body is being sent', async (context) => {
  const { port } = await serve(context)
  const bytes = 64 * 2 ** 20
  const socket = connect({ port, host: '127.0.0.1' }).setEncoding('utf8')
  let answer = ''
  socket.on('data', (chunk: string) => {
    answer += chunk
  })
  socket.on('error', () => {})
  socket.write(deployHead('Bad_Name', `Content-Length: ${bytes}`))
  const chunk = Buffer.alloc(2 ** 20)
  for (let sent = 0; sent < bytes && !socket.destroyed; sent += chunk.length) {
    if (!socket.write(chunk)) {
      const waited = new AbortController()
      const { signal } = waited
      await Promise.race([once(socket, 'drain', { signal }), once(socket, 'close', { signal })])
      waited.abort()
    }
  }
  await eventually('the answer', () => assert.equal(summary(answer), '400 NAME_INVALID'))
  socket.destroy()
})

/** A platform whose deploy reads the body to its end, and what became of that. */
async function serveReader(context: TestContext, options: Parameters<typeof serve>[1] = {}) {
  const outcome: { error?: unknown; aborted?: boolean; started?: boolean } = {}
  const served = await serve(context, {
    ...options,
    platform: {
      async deploy(name, stream, _options, signal) {
        signal.addEventListener('abort', () => {
          outcome.aborted = true
        })
        try {
          for await (const _ of stream) outcome.started = true
        } catch (error) {
          outcome.error = error
          throw error
        }
        return { name, ip: '::', cmd: [], contract: 'fd', version: 1 }
      },
    },
  })
  return { ...served, outcome }
}

test('B04 when the caller closes in the middle of the body, the deploy is told at once', async (context) => {
  const { port, outcome } = await serveReader(context)
  const socket = connect({ port, host: '127.0.0.1' })
  socket.write(`${deployHead('one', 'Content-Length: 1000000')}the beginning`)
  await eventually('the first bytes', () => assert.ok(outcome.started))
  socket.destroy()
  await eventually('the abort', () => assert.ok(outcome.aborted))
  await eventually('the end of the body', () =>
    assert.equal((outcome.error as FaasError | undefined)?.code, 'ARCHIVE_TRUNCATED'),
  )
})

test('B05 a body shorter than its length is an archive cut short', async (context) => {
  const { port, outcome } = await serveReader(context)
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  socket.on('error', () => {}).resume()
  socket.end(`${deployHead('one', 'Content-Length: 1000000')}the beginning`)
  await eventually('the end of the body', () =>
    assert.equal((outcome.error as FaasError | undefined)?.code, 'ARCHIVE_TRUNCATED'),
  )
  socket.destroy()
})

test('B69 headers that do not end are cut off', async (context) => {
  const { port } = await serve(context, { headersTimeoutMs: 300 })
  assert.equal(
    summary(await exchange(port, 'GET /api/list HTTP/1.1\r\nHost: localhost\r\n')),
    '400 REQUEST_INVALID',
  )
})

test('B69 an upload that stands still is cut off, with an answer', async (context) => {
  const { port } = await serveReader(context, { pace: { stallMs: 200, minBytesPerSecond: 1 } })
  const answer = await exchange(port, `${deployHead('one', 'Content-Length: 1000000')}the beginning`)
  assert.equal(summary(answer), '400 ARCHIVE_TRUNCATED')
})

test('B69 an upload that trickles is cut off, with an answer', async (context) => {
  const { port } = await serveReader(context, { pace: { stallMs: 400, minBytesPerSecond: 1_000_000 } })
  const socket = connect({ port, host: '127.0.0.1' }).setEncoding('utf8')
  socket.on('error', () => {})
  socket.write(deployHead('one', 'Content-Length: 1000000'))
  const trickle = setInterval(() => socket.write('x'), 50)
  let answer = ''
  for await (const chunk of socket) answer += chunk as string
  clearInterval(trickle)
  assert.equal(summary(answer), '400 ARCHIVE_TRUNCATED')
})

test('B69 a JSON body that does not come is not waited for', async (context) => {
  const { port } = await serve(context, { jsonBodyTimeoutMs: 200 })
  assert.equal(await exchange(port, `${lines(...post, 'Content-Length: 17')}{"na`), '')
})

test('a follower of a log gets the head at once, and leaves without a trace', async (context) => {
  let isOver = false
  const { port } = await serve(context, {
    platform: {
      logs: async (_name, _options, signal) =>
        // A log that stays silent.
        (async function* (): AsyncGenerator<never> {
          yield* []
          await new Promise((resolve) => signal.addEventListener('abort', resolve))
          isOver = true
        })(),
    },
  })
  const head = lines('GET /api/functions/one/logs?follow=1 HTTP/1.1', 'Host: localhost')
  const answer = await exchange(port, head, { until: '\r\n\r\n' })
  assert.equal(statusOf(answer), 200)
  await eventually('the log to be let go', () => assert.ok(isOver))
})

test('stopping lets a request in flight finish', async (context) => {
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  let hasStarted = false
  const { port, listening } = await serve(context, {
    platform: {
      metrics: async () => {
        hasStarted = true
        await released
        return 'late\n'
      },
    },
  })
  const answer = exchange(port, lines('GET /metrics HTTP/1.1', 'Host: localhost'))
  await eventually('the request', () => assert.ok(hasStarted))
  const stopped = listening[Symbol.asyncDispose]()
  release()
  assert.match(await answer, /late/)
  await stopped
})
