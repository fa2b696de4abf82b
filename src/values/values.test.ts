import assert from 'node:assert/strict'
import { isIPv6 } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { digestOfHex, hexOf, parseDigest } from './digest.ts'
import { FaasError, toFaasError } from './errors.ts'
import { formatIpv6, ipv6Bytes, parseIpv6 } from './ipv6.ts'
import { parseFunctionName, parsePeerName } from './names.ts'

test('parseFunctionName() takes DNS labels of up to 63 characters, prototype words and digits included', () => {
  for (const name of [
    'a',
    'fibonacci',
    'a-b',
    '0x7f',
    '12345',
    'constructor',
    'xn--bcher-kva',
    'a'.repeat(63),
  ]) {
    assert.equal(parseFunctionName(name), name)
  }
})

test('parseFunctionName() refuses what is not a DNS label', () => {
  const bad = [
    undefined,
    null,
    '',
    '.',
    '..',
    'a/b',
    'a\\b',
    '%2e',
    'A',
    'a.b',
    '-a',
    'a-',
    'a b',
    'ü',
    'a\n',
    'a\0',
    '$INCLUDE',
  ]
  for (const name of [...bad, 'a'.repeat(64), ['a'], 7]) {
    assert.throws(() => parseFunctionName(name), { code: 'NAME_INVALID' })
  }
})

test('parseFunctionName() refuses reserved labels', () => {
  for (const name of [
    'ns',
    '@',
    '*',
    'localhost',
    'wpad',
    'isatap',
    'api',
    'dns',
    'vpn',
    'admin',
    'hostmaster',
  ]) {
    assert.throws(() => parseFunctionName(name), { code: 'NAME_RESERVED' })
  }
  assert.equal(parsePeerName('vpn'), 'vpn')
})

test('no text of any kind passes parseFunctionName() unless it is a label', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      try {
        return /^[a-z0-9-]{1,63}$/.test(parseFunctionName(text))
      } catch (error) {
        return error instanceof FaasError
      }
    }),
  )
})

test('IPv6 text forms of one address become one canonical form (RFC 5952)', () => {
  assert.equal(parseIpv6('fd00:faa5:1:0::a'), 'fd00:faa5:1::a')
  assert.equal(parseIpv6('FD00:FAA5:0:100:0:0:0:1'), 'fd00:faa5:0:100::1')
  assert.equal(parseIpv6('::ffff:127.0.0.1'), '::ffff:7f00:1')
  assert.equal(parseIpv6('0:0:0:0:0:0:0:0'), '::')
  assert.equal(parseIpv6('1:0:0:2:0:0:0:3'), '1:0:0:2::3')
  assert.throws(() => parseIpv6('fe80::1%eth0'), TypeError)
  assert.throws(() => parseIpv6('10.0.0.1'), TypeError)
})

test('formatIpv6() and ipv6Bytes() are each other’s inverse', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
      const text = formatIpv6(bytes)
      return isIPv6(text) && ipv6Bytes(text).equals(bytes)
    }),
  )
})

test('parseDigest() takes sha256 with 64 lower-case hex digits and nothing else', () => {
  const hex = 'ab'.repeat(32)
  assert.equal(hexOf(digestOfHex(hex)), hex)
  for (const bad of [
    hex,
    `sha256:${hex}0`,
    `sha256:${hex.toUpperCase()}`,
    `sha512:${hex}`,
    'sha256:../../etc/passwd',
    null,
  ]) {
    assert.throws(() => parseDigest(bad), { code: 'ARCHIVE_INVALID' })
  }
})

test('toFaasError() keeps what is one and wraps the rest as INTERNAL', () => {
  const known = new FaasError('NOT_FOUND', 'no such page', { hint: 'look elsewhere' })
  assert.equal(toFaasError(known), known)
  assert.equal(known.status, 404)
  const cause = new TypeError('oops')
  assert.equal(toFaasError(cause).code, 'INTERNAL')
  assert.equal(toFaasError(cause).cause, cause)
})
