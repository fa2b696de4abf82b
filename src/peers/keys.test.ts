import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FaasError } from '../values/errors.ts'
import { generateKeyPair, parsePrivateKey, parsePublicKey, publicKeyOf } from './keys.ts'

const isRefused = (error: unknown): boolean => error instanceof FaasError && error.code === 'PEER_KEY_INVALID'
const ofHex = (hex: string): string => Buffer.from(hex, 'hex').toString('base64')

test('generateKeyPair() makes keys that parse, differ, and belong together', () => {
  const one = generateKeyPair()
  const other = generateKeyPair()
  assert.equal(parsePublicKey(one.publicKey), one.publicKey)
  assert.equal(parsePrivateKey(one.privateKey), one.privateKey)
  assert.equal(publicKeyOf(one.privateKey), one.publicKey)
  assert.notEqual(one.publicKey, other.publicKey)
})

test('publicKeyOf() agrees with the first iteration of RFC 7748 §5.2', () => {
  const nine = parsePrivateKey(ofHex(`09${'00'.repeat(31)}`))
  const expected = '422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079'
  assert.equal(publicKeyOf(nine), ofHex(expected))
})

test('B73: parsePublicKey() refuses keys of a wrong length or spelling', () => {
  const { publicKey } = generateKeyPair()
  for (const text of [
    undefined,
    null,
    7,
    '',
    'abc',
    publicKey.slice(0, -1),
    `${publicKey}=`,
    `${publicKey}\n`,
    ` ${publicKey}`,
    publicKey.replace('=', 'A'),
    `${'A'.repeat(42)}B=`,
    Buffer.alloc(31, 9).toString('base64'),
    Buffer.alloc(33, 9).toString('base64'),
  ]) {
    assert.throws(() => parsePublicKey(text), isRefused, JSON.stringify(text))
  }
})

test('B73: parsePublicKey() refuses zero, points of low order, and second spellings of a key', () => {
  const lowOrder = [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ]
  for (const hex of lowOrder) assert.throws(() => parsePublicKey(ofHex(hex)), isRefused, hex)
  const bytes = Buffer.from(generateKeyPair().publicKey, 'base64')
  bytes.writeUInt8(bytes.readUInt8(31) | 0x80, 31)
  assert.throws(() => parsePublicKey(bytes.toString('base64')), isRefused)
})
