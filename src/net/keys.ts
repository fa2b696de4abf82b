/** WireGuard's keys: Curve25519 (RFC 7748), 32 bytes in base64. Pure but for the random bytes. */
import { createPrivateKey, createPublicKey, randomBytes } from 'node:crypto'

/** DER of a PKCS #8 `PrivateKeyInfo` with the algorithm X25519 (RFC 8410 §7), up to the key's 32 bytes. */
const privateKeyHeader = Buffer.from('302e020100300506032b656e04220420', 'hex')

/** The 32 bytes of a key in base64, or undefined when the text is anything else. */
export function decodeKey(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.length === 32 && bytes.toString('base64') === text ? bytes : undefined
}

/** A new private key, as `wg genkey` prints it: random, with the bits fixed that RFC 7748 §5 fixes. */
export function generatePrivateKey(): string {
  const bytes = randomBytes(32)
  bytes.writeUInt8(bytes.readUInt8(0) & 0b1111_1000, 0)
  bytes.writeUInt8((bytes.readUInt8(31) & 0b0111_1111) | 0b0100_0000, 31)
  return bytes.toString('base64')
}

/** The public key that belongs to a private one, as `wg pubkey` prints it. Throws TypeError for what is no key. */
export function publicKeyOf(privateKey: string): string {
  const bytes = decodeKey(privateKey)
  if (bytes === undefined) throw new TypeError('not a WireGuard key: expected 32 bytes in base64')
  const key = createPrivateKey({
    key: Buffer.concat([privateKeyHeader, bytes]),
    format: 'der',
    type: 'pkcs8',
  })
  const { x = '' } = createPublicKey(key).export({ format: 'jwk' })
  return Buffer.from(x, 'base64url').toString('base64')
}
