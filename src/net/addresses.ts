/**
 * The address plan, and the choice of the next free address. Pure.
 * A WireGuard device routes `platformPrefix` into the tunnel; everything below lies inside it.
 */
import { FaasError } from '../values/errors.ts'
import { formatIpv6, type Ipv6, ipv6Bytes, parseIpv6 } from '../values/ipv6.ts'

/** The server's WireGuard link. */
export const serverLink = 'wg0'
/** A device's WireGuard link. */
export const deviceLink = 'wg-faas'

/** The whole platform. */
export const platformPrefix = 'fd00:faa5::/32'
/** The server and its peers. */
export const peersPrefix = 'fd00:faa5:0:100::/64'
/** Devices that hold an invitation and have not joined yet. */
export const quarantinePrefix = 'fd00:faa5:0:200::/64'
/** The functions of all deployments, one /64 a deployment. */
export const functionsPrefix = 'fd00:faa5:1::/48'

/** The server's own address on {@link serverLink}: WireGuard, DNS and the join service. */
export const serverAddress: Ipv6 = parseIpv6('fd00:faa5:0:100::1')
export const serverPrefixLength = 64

/** UDP, the one port that is open to the world. */
export const wireguardPort = 51820
/** TCP on the server's address, reached from quarantine only. */
export const joinPort = 51821
/** UDP and TCP on the server's address. */
export const dnsPort = 53
/** TCP on a function's address. */
export const functionPort = 80

/** `SO_MARK` of every listener and of every connection accepted on one. The firewall's rules for passed sockets hang on it. */
export const passedSocketMark = 0xfaa5

/** How long a resolver may keep a name's address. */
export const dnsTtlSeconds = 60
/** How long a freed address rests before another name may have it: the TTL and a minute. */
export const addressRestMs = (dnsTtlSeconds + 60) * 1000

/** A run of addresses that are given out one by one, lowest first. */
export interface AddressPool {
  /** What the addresses are for, as an error says it. */
  readonly purpose: string
  readonly first: Ipv6
  readonly last: Ipv6
}

export const functionPool: AddressPool = {
  purpose: 'functions',
  first: parseIpv6('fd00:faa5:1::a'),
  last: parseIpv6('fd00:faa5:1::ffff'),
}
export const peerPool: AddressPool = {
  purpose: 'peers',
  first: parseIpv6('fd00:faa5:0:100::a'),
  last: parseIpv6('fd00:faa5:0:100::ffff'),
}
export const quarantinePool: AddressPool = {
  purpose: 'invited devices',
  first: parseIpv6('fd00:faa5:0:200::a'),
  last: parseIpv6('fd00:faa5:0:200::ffff'),
}

const toInteger = (address: string): bigint => BigInt(`0x${ipv6Bytes(address).toString('hex')}`)
const fromInteger = (value: bigint): Ipv6 =>
  formatIpv6(Buffer.from(value.toString(16).padStart(32, '0'), 'hex'))

/**
 * The lowest address of a pool that is not taken. Pass resting addresses ({@link restingAddresses}) as taken.
 * Throws ADDRESS_POOL_EMPTY behind the pool's last address: it never wraps.
 */
export function firstFreeAddress(pool: AddressPool, taken: ReadonlySet<Ipv6>): Ipv6 {
  const last = toInteger(pool.last)
  for (let value = toInteger(pool.first); value <= last; value++) {
    const address = fromInteger(value)
    if (!taken.has(address)) return address
  }
  throw new FaasError(
    'ADDRESS_POOL_EMPTY',
    `all addresses for ${pool.purpose}, ${pool.first} to ${pool.last}, are taken`,
    { hint: 'remove what is no longer used; a freed address can be given out again two minutes later' },
  )
}

/** An address that its function gave back. */
export interface FreedAddress {
  readonly address: Ipv6
  /** Milliseconds since the epoch. */
  readonly freedAtMs: number
}

/**
 * Those that may not be given to another name yet. A time in the future (the clock was set back) counts as
 * resting: an address too many at rest costs nothing, one too few leads a cached answer to the wrong function.
 */
export function restingAddresses(freed: readonly FreedAddress[], nowMs: number): readonly FreedAddress[] {
  return freed.filter(({ freedAtMs }) => nowMs - freedAtMs < addressRestMs)
}

/** Whether an address lies in a prefix (`ADDRESS/LENGTH`). Throws TypeError when either is malformed. */
export function isInPrefix(address: string, prefix: string): boolean {
  const [network = '', lengthText = ''] = prefix.split('/')
  const length = Number(lengthText)
  if (!/^\d{1,3}$/.test(lengthText) || length > 128) throw new TypeError(`not an IPv6 prefix: ${prefix}`)
  const rest = BigInt(128 - length)
  return toInteger(address) >> rest === toInteger(network) >> rest
}
