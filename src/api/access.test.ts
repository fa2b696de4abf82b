import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { FaasError } from '../values/errors.ts'
import { checkHost, checkOrigin, createCallerCheck } from './access.ts'

const hasCode = (code: string) => (error: unknown) => error instanceof FaasError && error.code === code

for (const host of [
  'localhost',
  'localhost:8080',
  '127.0.0.1',
  '127.0.0.1:8080',
  '[::1]',
  '[::1]:8080',
  'LocalHost:8080',
]) {
  test(`checkHost() lets ${host} pass`, () => checkHost(['Accept', '*/*', 'Host', host], 8080))
}

for (const [what, headers] of Object.entries({
  'a foreign name': ['Host', 'evil.com'],
  'no Host': ['Accept', 'Host'],
  'an empty one': ['Host', ''],
  'two of them': ['Host', 'localhost', 'host', 'localhost'],
  'a name under a foreign one': ['Host', 'localhost.evil.com'],
  'a name that resolves to loopback': ['Host', '127.0.0.1.nip.io'],
  'another port': ['Host', 'localhost:80'],
  'a user before it': ['Host', 'evil.com@localhost'],
  'two in one': ['Host', 'localhost, localhost'],
  'an end of its own': ['Host', 'localhost:8080:1'],
  'another loopback address': ['Host', '127.0.0.2:8080'],
})) {
  test(`B64 checkHost() refuses ${what}`, () =>
    assert.throws(() => checkHost(headers, 8080), hasCode('HOST_REFUSED')))
}

for (const headers of [
  { origin: 'http://evil.com' },
  { origin: 'null' },
  { origin: '' },
  { origin: 'http://localhost:8080' },
  { referer: 'http://localhost:8080/' },
  { 'sec-fetch-site': 'cross-site' },
  { 'sec-fetch-site': 'same-site' },
  { 'sec-fetch-site': 'same-origin' },
]) {
  test(`B65 checkOrigin() refuses ${JSON.stringify(headers)}`, () =>
    assert.throws(() => checkOrigin(headers), hasCode('ORIGIN_REFUSED')))
}

test('checkOrigin() lets a program pass', () => {
  checkOrigin({ host: 'localhost', 'user-agent': 'curl/8' })
  checkOrigin({ 'sec-fetch-site': 'none' })
})

const socketOf = (): Socket =>
  ({ remoteAddress: '127.0.0.1', remotePort: 40_000, localAddress: '127.0.0.1', localPort: 8080 }) as Socket

const users: Record<number, { name: string; isMember: boolean }> = {
  1000: { name: 'alice', isMember: true },
  1001: { name: 'bob', isMember: false },
}
const findUser = async (uid: number) => users[uid] ?? { name: String(uid), isMember: false }

test('createCallerCheck() lets root and members of the group pass', async () => {
  for (const uid of [0, 1000]) {
    const caller = createCallerCheck({ socketOwner: () => uid, findUser })
    const socket = socketOf()
    caller.connected(socket)
    await caller.check(socket)
  }
})

test('createCallerCheck() refuses another user and says how to become a member', async () => {
  const caller = createCallerCheck({ socketOwner: () => 1001, findUser })
  const socket = socketOf()
  caller.connected(socket)
  await assert.rejects(caller.check(socket), (error: FaasError) => {
    assert.equal(error.code, 'CALLER_REFUSED')
    assert.match(error.hint ?? '', /usermod -aG faas bob/)
    return true
  })
})

test('createCallerCheck() refuses a connection without a known owner', async () => {
  const caller = createCallerCheck({ socketOwner: () => undefined, findUser })
  const socket = socketOf()
  caller.connected(socket)
  await assert.rejects(caller.check(socket), hasCode('CALLER_REFUSED'))
  await assert.rejects(caller.check(socketOf()), hasCode('CALLER_REFUSED'))
})

test('createCallerCheck() refuses a caller whom the kernel cannot be asked about', async () => {
  const socketOwner = () => {
    throw new FaasError('SYSCALL_FAILED', 'socket AF_NETLINK: EMFILE')
  }
  const caller = createCallerCheck({ socketOwner, findUser })
  const socket = socketOf()
  caller.connected(socket)
  await assert.rejects(caller.check(socket), hasCode('CALLER_REFUSED'))
})

test("createCallerCheck() asks the kernel once a connection, for the caller's end of it", async () => {
  const asked: unknown[] = []
  let lookups = 0
  const caller = createCallerCheck({
    socketOwner: (tuple) => {
      asked.push(tuple)
      return 1000
    },
    findUser: async (uid) => {
      lookups++
      return await findUser(uid)
    },
  })
  const socket = socketOf()
  caller.connected(socket)
  await Promise.all([caller.check(socket), caller.check(socket)])
  await caller.check(socket)
  assert.equal(lookups, 1)
  assert.deepEqual(asked, [
    { local: { address: '127.0.0.1', port: 40_000 }, remote: { address: '127.0.0.1', port: 8080 } },
  ])
})
