import assert from 'node:assert/strict'
import { connect, createServer } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { eventually } from '../host/eventually.ts'
import { FaasError } from '../values/errors.ts'
import { startJoinService } from './join-service.ts'
import type { PeerNetwork } from './network.ts'

/** A port on ::1 that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen({ host: '::1', port: 0 })
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function started(redeem: PeerNetwork['redeem']) {
  const port = await freePort()
  const reports: string[] = []
  const report = (message: string) => void reports.push(message)
  const service = startJoinService({ address: '::1', port, network: { redeem }, report })
  await eventually('the service listens', () => assert.ok(service.isListening()))
  const post = (body: string, path = '/join', method = 'POST') =>
    fetch(`http://[::1]:${port}${path}`, method === 'GET' ? {} : { method, body })
  return { service, port, reports, post }
}

test("the join service hands on the caller's address and key, and answers what redeem() answers", async () => {
  const answer = { name: 'laptop', ipv6: 'fd00:faa5:0:100::a', server_public_key: 'k', endpoint: 'h:1' }
  const asked: unknown[] = []
  const { service, post } = await started(async (source, key) => {
    asked.push([source, key])
    return answer as never
  })
  await using _ = service
  const response = await post('{"public_key":"abc"}')
  assert.equal(response.status, 200)
  assert.deepEqual(await response.json(), answer)
  assert.deepEqual(asked, [['::1', 'abc']])
})

test('the join service answers refusals as the API does', async () => {
  const { service, post } = await started(async () => {
    throw new FaasError('INVITATION_INVALID', 'no invitation is open at this address', { hint: 'ask' })
  })
  await using _ = service
  const response = await post('{"public_key":"abc"}')
  assert.equal(response.status, 403)
  assert.deepEqual(await response.json(), {
    error: { code: 'INVITATION_INVALID', message: 'no invitation is open at this address', hint: 'ask' },
  })
})

test('the join service refuses other paths, methods and bodies without asking anybody', async () => {
  const { service, post } = await started(async () => assert.fail('asked'))
  await using _ = service
  const cases: [string, string, string, number][] = [
    ['{"public_key":"a"}', '/', 'POST', 404],
    ['', '/join', 'GET', 405],
    ['', '/join', 'POST', 400],
    ['[]', '/join', 'POST', 400],
    ['{"public_key":7}', '/join', 'POST', 400],
    ['{"public_key":"a","name":"b"}', '/join', 'POST', 400],
    [`{"public_key":"${'a'.repeat(5000)}"}`, '/join', 'POST', 400],
  ]
  for (const [body, path, method, status] of cases) {
    assert.equal((await post(body, path, method)).status, status, `${method} ${path} ${body.slice(0, 40)}`)
  }
})

test('the join service cuts off what is no HTTP, and goes on', async () => {
  const { service, port, post } = await started(async () => ({}) as never)
  await using _ = service
  const socket = connect({ host: '::1', port })
  socket.end('SSH-2.0-x\r\n\r\n')
  assert.match(await text(socket), /^HTTP\/1\.1 400/)
  assert.equal((await post('{"public_key":"a"}')).status, 200)
})

test('the join service waits for an address that is not there yet, silently, and ends when it is told', async () => {
  const reports: string[] = []
  const service = startJoinService({
    address: '2001:db8::77',
    port: 51821,
    network: { redeem: async () => assert.fail('asked') },
    report: (message) => void reports.push(message),
  })
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(service.isListening(), false)
  await service[Symbol.asyncDispose]()
  assert.deepEqual(reports, [])
})
