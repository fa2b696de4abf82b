/**
 * One peer's file, `/etc/wireguard/peers/NAME.conf`, in the syntax of wg(8), "CONFIGURATION FILE FORMAT":
 *
 *   # Created = 2026-01-31T12:00:00.000Z
 *   [Peer]
 *   PublicKey = …
 *   AllowedIPs = fd00:faa5:0:100::a/128
 *
 * The name is the file's name and never its content: wg-quick runs some lines of such files as root, so nothing that
 * came from outside as text is ever written into one. Parsing takes exactly this and no more; what else a person
 * may have written there is reported, not guessed at.
 */
import { type Ipv6, parseIpv6 } from '../values/ipv6.ts'
import type { PeerName } from '../values/names.ts'
import { type PublicKey, parsePublicKey } from './keys.ts'

export interface Peer {
  readonly name: PeerName
  readonly publicKey: PublicKey
  readonly address: Ipv6
  /** ISO 8601, UTC. */
  readonly created: string
}

export const renderPeerFile = (peer: Omit<Peer, 'name'>): string =>
  `# Created = ${peer.created}\n[Peer]\nPublicKey = ${peer.publicKey}\nAllowedIPs = ${peer.address}/128\n`

/** Reads a peer's file. Throws an Error that says what is wrong with it. `modified` stands in for a missing date. */
export function parsePeerFile(name: PeerName, text: string, modified: Date): Peer {
  const values = new Map<string, string>()
  let inPeer = false
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim()
    const where = `line ${index + 1}`
    const created = /^#\s*Created\s*=\s*(\S+)$/i.exec(line)?.[1]
    if (created !== undefined) set(values, 'created', created, where)
    if (line === '' || line.startsWith('#')) continue
    if (/^\[peer\]$/i.test(line)) {
      if (inPeer) throw new Error(`${where}: a second [Peer]`)
      inPeer = true
      continue
    }
    const [, key, value] = /^(publickey|allowedips)\s*=\s*(\S+)$/i.exec(line) ?? []
    if (!inPeer || key === undefined || value === undefined) {
      throw new Error(`${where}: expected [Peer] with one PublicKey and one AllowedIPs, and nothing else`)
    }
    set(values, key.toLowerCase(), value, where)
  }
  const publicKey = values.get('publickey')
  const allowed = values.get('allowedips')
  if (publicKey === undefined) throw new Error('no PublicKey')
  if (allowed === undefined) throw new Error('no AllowedIPs')
  if (!allowed.endsWith('/128'))
    throw new Error(`AllowedIPs must be one IPv6 address and /128, got ${shown(allowed)}`)
  return {
    name,
    publicKey: parsePublicKey(publicKey),
    address: parseIpv6(allowed.slice(0, -'/128'.length)),
    created: isoTime(values.get('created')) ?? modified.toISOString(),
  }
}

function set(values: Map<string, string>, key: string, value: string, where: string): void {
  if (values.has(key)) throw new Error(`${where}: ${key} for the second time`)
  values.set(key, value)
}

function isoTime(text: string | undefined): string | undefined {
  const time = text === undefined ? Number.NaN : Date.parse(text)
  return Number.isNaN(time) ? undefined : new Date(time).toISOString()
}

const shown = (text: string): string => JSON.stringify(text.slice(0, 80))
