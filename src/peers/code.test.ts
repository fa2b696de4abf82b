import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseIpv6 } from '../values/ipv6.ts'
import { parsePeerName } from '../values/names.ts'
import { decodeCode, encodeCode, type InvitationCode, looksLikeCode } from './code.ts'
import { generateKeyPair } from './keys.ts'

const server = generateKeyPair()
const oneTime = generateKeyPair()
const codeWith = (o: Partial<InvitationCode> = {}): InvitationCode => ({
  name: parsePeerName('laptop'),
  endpoint: { host: '203.0.113.10', port: 51820 },
  serverPublicKey: server.publicKey,
  oneTimePrivateKey: oneTime.privateKey,
  address: parseIpv6('fd00:faa5:0:200::a'),
  expires: new Date('2026-05-01T12:00:00Z'),
  ...o,
})
const isRefused = { code: 'INVITATION_CODE_INVALID' }

test('decodeCode() reads back what encodeCode() wrote, for every kind of endpoint and name', () => {
  for (const host of ['203.0.113.10', '2001:db8::1', 'faas.example.com', 'a']) {
    for (const name of ['a', 'laptop', 'x'.repeat(63)]) {
      const code = codeWith({ endpoint: { host, port: 65_535 }, name: parsePeerName(name) })
      const text = encodeCode(code)
      assert.match(text, /^faas1-[-_A-Za-z0-9]+$/)
      assert.deepEqual(decodeCode(text), code)
      assert.ok(looksLikeCode(text))
    }
  }
})

test('decodeCode() ignores the white space of a copied line break', () => {
  const text = encodeCode(codeWith())
  assert.deepEqual(decodeCode(`\n${text.slice(0, 40)}\n  ${text.slice(40)}\n`), codeWith())
})

test('decodeCode() refuses a code that is cut short at any place, and says so', () => {
  const text = encodeCode(codeWith())
  for (let length = 0; length < text.length; length++) {
    assert.throws(() => decodeCode(text.slice(0, length)), isRefused, `the first ${length}`)
  }
})

test('decodeCode() refuses a code with any one character changed', () => {
  const text = encodeCode(codeWith())
  fc.assert(
    fc.property(
      fc.nat(text.length - 1),
      fc.constantFrom('a', 'Z', '0', '9', '-', '_', '=', '+', '/'),
      (at, character) => {
        if (text[at] === character) return
        assert.throws(() => decodeCode(text.slice(0, at) + character + text.slice(at + 1)), isRefused)
      },
    ),
  )
})

test('decodeCode() names a code of a newer release, and what is no code at all', () => {
  assert.throws(() => decodeCode(encodeCode(codeWith()).replace('faas1', 'faas2')), {
    ...isRefused,
    message: /version 2/,
  })
  assert.throws(() => decodeCode('laptop'), { ...isRefused, message: /does not begin/ })
})

test('looksLikeCode() tells codes from names', () => {
  for (const name of ['laptop', 'faas1-laptop', 'x'.repeat(63)])
    assert.equal(looksLikeCode(name), false, name)
  assert.equal(looksLikeCode('faas1-AbC'), true)
})
