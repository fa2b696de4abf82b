/**
 * WireGuard's keys: 32 bytes of Curve25519 as base64 (wg(8), "key"; RFC 7748 §5).
 * A public key from outside becomes a {@link PublicKey} here, once. Refused with PEER_KEY_INVALID: another length or
 * spelling, zero, numbers that are not below 2^255 - 19 (a second spelling of some other key), and the points of
 * low order, with which every key exchange ends in the same known secret (RFC 7748 §6.1).
 */
import { createPublicKey, diffieHellman, generateKeyPairSync } from 'node:crypto'
import { decodeKey, generatePrivateKey, publicKeyOf as publicTextOf } from '../net/keys.ts'
import { FaasError } from '../values/errors.ts'

declare const checked: unique symbol

/** Canonical base64 of a usable public key; made only by {@link parsePublicKey} and {@link publicKeyOf}. */
export type PublicKey = string & { readonly [checked]: 'public key' }
/** Canonical base64 of a private key. Never logged, never in an argument list. */
export type PrivateKey = string & { readonly [checked]: 'private key' }

export interface KeyPair {
  readonly privateKey: PrivateKey
  readonly publicKey: PublicKey
}

const prime = (1n << 255n) - 19n

/** Checks a public key. Throws PEER_KEY_INVALID. */
export function parsePublicKey(text: unknown): PublicKey {
  const bytes = typeof text === 'string' ? decodeKey(text) : undefined
  if (!bytes) throw refused('it must be the base64 of 32 bytes (44 characters)')
  if (bytes.every((byte) => byte === 0)) throw refused('it is zero')
  if (littleEndian(bytes) >= prime) throw refused('it is not the canonical form of a Curve25519 key')
  if (isLowOrder(bytes)) throw refused('it is a point of low order')
  return text as PublicKey
}

/** Checks a private key: the base64 of 32 bytes. Throws PEER_KEY_INVALID, without showing what it got. */
export function parsePrivateKey(text: unknown): PrivateKey {
  const bytes = typeof text === 'string' ? decodeKey(text) : undefined
  if (!bytes || bytes.every((byte) => byte === 0)) {
    throw new FaasError('PEER_KEY_INVALID', 'a private key must be the base64 of 32 bytes (44 characters)')
  }
  return text as PrivateKey
}

/** A new key pair, from the system's random source. */
export function generateKeyPair(): KeyPair {
  const privateKey = generatePrivateKey() as PrivateKey
  return { privateKey, publicKey: publicKeyOf(privateKey) }
}

/** The public half of a private key. */
export const publicKeyOf = (privateKey: PrivateKey): PublicKey => publicTextOf(privateKey) as PublicKey

const littleEndian = (bytes: Buffer): bigint => BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`)

/** OpenSSL refuses an exchange whose secret is all zero, which is what a point of low order gives with any key. */
function isLowOrder(bytes: Buffer): boolean {
  const { privateKey } = generateKeyPairSync('x25519')
  const publicKey = createPublicKey({
    key: { kty: 'OKP', crv: 'X25519', x: bytes.toString('base64url') },
    format: 'jwk',
  })
  try {
    return diffieHellman({ privateKey, publicKey }).every((byte) => byte === 0)
  } catch {
    return true
  }
}

const refused = (why: string): FaasError =>
  new FaasError('PEER_KEY_INVALID', `not a usable WireGuard public key: ${why}`, {
    hint: 'make one on the device with `wg genkey | wg pubkey`, or let `faas vpn connect` do it',
  })
