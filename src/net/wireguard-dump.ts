/** What WireGuard says about itself: `wg show INTERFACE dump` (wg(8)), taken apart. Pure; private keys are not kept. */
import { parseIpv6 } from '../values/ipv6.ts'

export interface WireguardPeer {
  readonly publicKey: string
  /** `ADDRESS:PORT` it was last heard from, undefined before the first packet. */
  readonly endpoint: string | undefined
  /** `ADDRESS/LENGTH`, as `wg` prints them. */
  readonly allowedIps: readonly string[]
  /** Seconds since the epoch, undefined when there was none. */
  readonly latestHandshakeSeconds: number | undefined
  readonly receivedBytes: number
  readonly sentBytes: number
}

export interface WireguardDump {
  readonly publicKey: string
  readonly listenPort: number
  readonly peers: readonly WireguardPeer[]
}

const nothing = '(none)'

/** Takes a dump apart: a line of the interface, then one a peer, fields parted by tabs. Throws TypeError for anything else. */
export function parseDump(text: string): WireguardDump {
  const [first = '', ...rest] = text.split('\n').filter((line) => line !== '')
  const [, publicKey, listenPort] = first.split('\t')
  if (publicKey === undefined || listenPort === undefined) {
    throw new TypeError('not a WireGuard dump: expected tabs')
  }
  return { publicKey, listenPort: Number(listenPort), peers: rest.map(parsePeer) }
}

function parsePeer(line: string): WireguardPeer {
  const [publicKey, , endpoint, allowedIps, handshake, received, sent] = line.split('\t')
  if (publicKey === undefined || allowedIps === undefined || sent === undefined) {
    throw new TypeError('not a peer of a WireGuard dump: expected 8 fields')
  }
  return {
    publicKey,
    endpoint: endpoint === nothing ? undefined : endpoint,
    allowedIps: allowedIps === nothing ? [] : allowedIps.split(','),
    latestHandshakeSeconds: Number(handshake) === 0 ? undefined : Number(handshake),
    receivedBytes: Number(received),
    sentBytes: Number(sent),
  }
}

/** Whether two texts (a `/LENGTH` behind them is ignored) mean the same IPv6 address. False for anything else. */
export function isSameAddress(one: string, other: string): boolean {
  try {
    return parseIpv6(one.replace(/\/\d+$/, '')) === parseIpv6(other.replace(/\/\d+$/, ''))
  } catch {
    return false
  }
}
