/**
 * The invitation code: all that a device needs to reach the join service, as one line of text.
 *
 * `faas1-` and the base64url (RFC 4648 §5, no padding) of
 *
 *   endpoint  4 | 6 | 0, then 4 bytes | 16 bytes | a length byte and that many of a host name; then the port (2)
 *   keys      the server's public key (32), the one-time private key (32)
 *   address   the last 2 bytes of the quarantine address
 *   expires   seconds since 1970 (4)
 *   name      a length byte and that many of the peer's name
 *   checksum  the first 4 bytes of SHA-256 over all of the above
 *
 * Numbers are big-endian. Whoever holds a code can join once until it expires: treat it as a password.
 * Anything else than a whole, undamaged code is INVITATION_CODE_INVALID.
 */
import { createHash } from 'node:crypto'
import { isIPv4, isIPv6 } from 'node:net'
import { quarantinePool } from '../net/addresses.ts'
import { FaasError } from '../values/errors.ts'
import { formatIpv6, type Ipv6, ipv6Bytes } from '../values/ipv6.ts'
import { type PeerName, parsePeerName } from '../values/names.ts'
import { type Endpoint, parseEndpoint } from './endpoint.ts'
import { type PrivateKey, type PublicKey, parsePrivateKey, parsePublicKey } from './keys.ts'

export interface InvitationCode {
  readonly name: PeerName
  readonly endpoint: Endpoint
  readonly serverPublicKey: PublicKey
  readonly oneTimePrivateKey: PrivateKey
  /** In {@link quarantinePool}. */
  readonly address: Ipv6
  /** Whole seconds; the device's clock may be wrong, so it explains a failure and decides nothing. */
  readonly expires: Date
}

/** The first 14 bytes of every quarantine address. */
const quarantineNetwork = ipv6Bytes(quarantinePool.first).subarray(0, 14)

const prefix = 'faas1-'
const checksumBytes = 4

/** Whether a text was meant as a code: names are at most 63 characters long, codes more. */
export const looksLikeCode = (text: string): boolean =>
  text.trim().length > 63 || /^faas\d+-[-_A-Za-z0-9]*[_A-Z]/.test(text.trim())

export function encodeCode(code: InvitationCode): string {
  const port = Buffer.alloc(2)
  port.writeUInt16BE(code.endpoint.port)
  const expires = Buffer.alloc(4)
  expires.writeUInt32BE(Math.floor(code.expires.getTime() / 1000))
  const address = ipv6Bytes(code.address)
  if (!address.subarray(0, 14).equals(quarantineNetwork)) {
    throw new TypeError(`not a quarantine address: ${code.address}`)
  }
  const body = Buffer.concat([
    encodeHost(code.endpoint.host),
    port,
    Buffer.from(code.serverPublicKey, 'base64'),
    Buffer.from(code.oneTimePrivateKey, 'base64'),
    address.subarray(14),
    expires,
    withLength(code.name),
  ])
  return prefix + Buffer.concat([body, checksum(body)]).toString('base64url')
}

/** Reads a code; white space in it (a line break of the terminal it was copied from) is ignored. */
export function decodeCode(text: string): InvitationCode {
  const compact = text.replace(/\s/g, '')
  const version = /^faas(\d+)-/.exec(compact)?.[1]
  if (version === undefined) throw refused('it does not begin with "faas1-"')
  if (version !== '1') {
    throw new FaasError(
      'INVITATION_CODE_INVALID',
      `this is a code of version ${version}, known is version 1`,
      {
        hint: 'install the same release of faas on this device as on the server',
      },
    )
  }
  const encoded = compact.slice(prefix.length)
  const bytes = Buffer.from(encoded, 'base64url')
  if (bytes.toString('base64url') !== encoded)
    throw refused('it has characters that no code has, or is cut short')
  if (bytes.length < checksumBytes + 1) throw refused('it is cut short')
  const body = bytes.subarray(0, -checksumBytes)
  if (!checksum(body).equals(bytes.subarray(-checksumBytes))) throw refused('its checksum does not match')
  try {
    return decodeBody(body)
  } catch (error) {
    throw refused(error instanceof Error ? error.message : String(error))
  }
}

function decodeBody(body: Buffer): InvitationCode {
  let at = 0
  const take = (count: number): Buffer => {
    if (at + count > body.length) throw new Error('it is cut short')
    at += count
    return body.subarray(at - count, at)
  }
  const takeText = (): string => take(take(1).readUInt8()).toString('latin1')
  const host = decodeHost(take(1).readUInt8(), take, takeText)
  const port = take(2).readUInt16BE()
  if (port === 0) throw new Error('its port is 0')
  const serverPublicKey = parsePublicKey(take(32).toString('base64'))
  const oneTimePrivateKey = parsePrivateKey(take(32).toString('base64'))
  const address = formatIpv6(Buffer.concat([quarantineNetwork, take(2)]))
  const expires = new Date(take(4).readUInt32BE() * 1000)
  const name = parsePeerName(takeText())
  if (at !== body.length) throw new Error('it is too long')
  return { name, endpoint: { host, port }, serverPublicKey, oneTimePrivateKey, address, expires }
}

function encodeHost(host: string): Buffer {
  if (isIPv4(host)) return Buffer.from([4, ...host.split('.').map(Number)])
  if (isIPv6(host)) return Buffer.concat([Buffer.from([6]), ipv6Bytes(host)])
  return Buffer.concat([Buffer.from([0]), withLength(host)])
}

function decodeHost(kind: number, take: (count: number) => Buffer, takeText: () => string): string {
  if (kind === 4) return take(4).join('.')
  if (kind === 6) return formatIpv6(take(16))
  if (kind !== 0) throw new Error(`its endpoint is of an unknown kind (${kind})`)
  const { host } = parseEndpoint(takeText())
  if (isIPv4(host) || isIPv6(host)) throw new Error('its endpoint is spelled as a name and is an address')
  return host
}

const withLength = (text: string): Buffer => Buffer.from([text.length, ...Buffer.from(text, 'latin1')])

const checksum = (body: Buffer): Buffer =>
  createHash('sha256').update(body).digest().subarray(0, checksumBytes)

const refused = (why: string): FaasError =>
  new FaasError('INVITATION_CODE_INVALID', `not a whole invitation code: ${why}`, {
    hint: 'copy the code once more, from "faas1-" to its last character, or ask for a new one (`faas vpn invite NAME`)',
  })
