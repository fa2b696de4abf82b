/**
 * The server's endpoint: where devices send their WireGuard packets, a host and a UDP port.
 * It is stated with FAAS_VPN_ENDPOINT (`host`, `host:port`, `203.0.113.10`, `[2001:db8::1]:51820`), else it is the source
 * address of the default route, which is right on a server with a public address of its own and wrong behind NAT.
 * Failures: OPTION_INVALID for a text that is no endpoint, ENDPOINT_UNKNOWN where nothing is stated and no route tells.
 */
import { isIPv4, isIPv6 } from 'node:net'
import type { Exec } from '../host/exec.ts'
import { wireguardPort } from '../net/addresses.ts'
import { FaasError } from '../values/errors.ts'
import { parseIpv6 } from '../values/ipv6.ts'

export interface Endpoint {
  /** A host name, or an IPv4 or IPv6 address without brackets. */
  readonly host: string
  /** UDP. */
  readonly port: number
}

const hostName = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$/

/** Reads an endpoint as `wg` writes it; the port may be left out. Throws OPTION_INVALID. */
export function parseEndpoint(text: string): Endpoint {
  const trimmed = text.trim()
  if (isIPv6(trimmed) && !trimmed.includes('%')) return { host: parseIpv6(trimmed), port: wireguardPort }
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(\d{1,5}))?$/.exec(trimmed)
  const port = match?.[3] === undefined ? wireguardPort : Number(match[3])
  if (match && port >= 1 && port <= 65_535) {
    const [, bracketed, plain] = match
    if (bracketed !== undefined && isIPv6(bracketed) && !bracketed.includes('%')) {
      return { host: parseIpv6(bracketed), port }
    }
    const host = plain?.toLowerCase() ?? ''
    const onlyDigits = /^[\d.]+$/.test(host)
    if (onlyDigits ? isIPv4(host) : hostName.test(host)) return { host, port }
  }
  throw new FaasError('OPTION_INVALID', `not a WireGuard endpoint: ${JSON.stringify(text.slice(0, 260))}`, {
    hint: 'write it as faas.example.com, 203.0.113.10:51820 or [2001:db8::1]:51820',
  })
}

/** `host:port`, with brackets around an IPv6 address. */
export const renderEndpoint = ({ host, port }: Endpoint): string =>
  `${isIPv6(host) ? `[${host}]` : host}:${port}`

export interface FoundEndpoint {
  readonly endpoint: Endpoint
  /** `stated` by FAAS_VPN_ENDPOINT, or `detected` from the default route. */
  readonly source: 'stated' | 'detected'
  /** What whoever runs the server should know about a detected one. */
  readonly warning?: string
}

// Documentation addresses (RFC 5737, RFC 3849): the route to them is the default route; nothing is sent.
const elsewhere = [
  ['-4', '192.0.2.1'],
  ['-6', '2001:db8::1'],
] as const

/** The endpoint to give to devices: `stated` when there is one, else the default route's source address. */
export async function findEndpoint(
  stated: string | undefined,
  { exec, port = wireguardPort }: { exec: Exec; port?: number },
): Promise<FoundEndpoint> {
  if (stated !== undefined && stated.trim() !== '') {
    return { endpoint: parseEndpoint(stated), source: 'stated' }
  }
  for (const [family, target] of elsewhere) {
    const host = await sourceAddress(family, target, exec)
    if (host === undefined) continue
    const about = isPrivate(host)
      ? 'a private address that other networks cannot reach'
      : 'detected, not stated'
    const warning = `the endpoint ${host} is ${about}: set FAAS_VPN_ENDPOINT where it is not what devices should use`
    return { endpoint: { host, port }, source: 'detected', warning }
  }
  throw new FaasError(
    'ENDPOINT_UNKNOWN',
    'no endpoint is stated, and the server has no default route to tell one',
    {
      hint: 'set FAAS_VPN_ENDPOINT to the host name or address at which devices reach this server',
    },
  )
}

async function sourceAddress(family: string, target: string, exec: Exec): Promise<string | undefined> {
  // Exit code 2: no such route.
  const { stdout, code } = await exec('ip', [family, '-json', 'route', 'get', target], { okCodes: [0, 1, 2] })
  if (code !== 0) return undefined
  const [route] = JSON.parse(stdout) as { prefsrc?: string; dev?: string }[]
  const host = route?.prefsrc
  return host !== undefined && route?.dev !== 'lo' && (isIPv4(host) || isIPv6(host)) ? host : undefined
}

/** RFC 1918, RFC 6598 and link-local for IPv4; unique and link-local for IPv6. */
const isPrivate = (host: string): boolean =>
  isIPv4(host)
    ? /^(10\.|192\.168\.|169\.254\.|172\.(1[6-9]|2\d|3[01])\.|100\.(6[4-9]|[789]\d|1[01]\d|12[0-7])\.)/.test(
        host,
      )
    : /^f([cd]|e[89ab])/i.test(host)
