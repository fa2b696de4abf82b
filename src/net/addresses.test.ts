import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Ipv6, parseIpv6 } from '../values/ipv6.ts'
import {
  addressRestMs,
  firstFreeAddress,
  functionPool,
  isInPrefix,
  peerPool,
  platformPrefix,
  quarantinePool,
  restingAddresses,
  serverAddress,
} from './addresses.ts'

const set = (...addresses: string[]): ReadonlySet<Ipv6> => new Set(addresses.map(parseIpv6))

test("the first function has the guide's address", () => {
  assert.equal(firstFreeAddress(functionPool, set()), parseIpv6('fd00:faa5:1:0::a'))
})

test('firstFreeAddress() fills the lowest gap, in hexadecimal order', () => {
  assert.equal(firstFreeAddress(functionPool, set('fd00:faa5:1::a', 'fd00:faa5:1::c')), 'fd00:faa5:1::b')
  const upToF = ['a', 'b', 'c', 'd', 'e', 'f'].map((digit) => `fd00:faa5:0:100::${digit}`)
  assert.equal(firstFreeAddress(peerPool, set(...upToF)), 'fd00:faa5:0:100::10')
})

test('B75 firstFreeAddress() refuses when the pool is empty and never wraps', () => {
  const pool = { purpose: 'peers', first: parseIpv6('fd00::a'), last: parseIpv6('fd00::b') }
  assert.throws(() => firstFreeAddress(pool, set('fd00::a', 'fd00::b')), {
    code: 'ADDRESS_POOL_EMPTY',
    status: 507,
  })
})

test('all pools and the server lie inside the platform, and the server in none of the pools', () => {
  for (const pool of [functionPool, peerPool, quarantinePool]) {
    assert.ok(isInPrefix(pool.first, platformPrefix))
    assert.ok(isInPrefix(pool.last, platformPrefix))
    assert.ok(serverAddress < pool.first || pool.purpose !== 'peers')
  }
})

test('a freed address rests for two minutes', () => {
  const freed = [
    { address: parseIpv6('fd00:faa5:1::a'), freedAtMs: 1_000_000 },
    { address: parseIpv6('fd00:faa5:1::b'), freedAtMs: 1_000_000 - addressRestMs },
    { address: parseIpv6('fd00:faa5:1::c'), freedAtMs: 9_000_000 },
  ]
  assert.equal(addressRestMs, 120_000)
  assert.deepEqual(
    restingAddresses(freed, 1_000_000).map(({ address }) => address),
    ['fd00:faa5:1::a', 'fd00:faa5:1::c'],
  )
})

test('isInPrefix() compares the leading bits only', () => {
  assert.ok(isInPrefix('fd00:faa5:1:ffff::1', 'fd00:faa5:1::/48'))
  assert.ok(!isInPrefix('fd00:faa5:2::1', 'fd00:faa5:1::/48'))
  assert.ok(isInPrefix('::1', '::/0'))
  assert.ok(!isInPrefix('::1', '::2/128'))
  for (const bad of ['fd00::', 'fd00::/129', 'fd00::/x', 'fd00::/'])
    assert.throws(() => isInPrefix('::1', bad), TypeError)
})
