/**
 * The addresses and routes of the server's WireGuard link. Ours are the server's own address, the functions' (/128 in
 * {@link functionsPrefix}) and the route to quarantine; whatever else is on the link is left alone.
 * Failures: NOT_READY when there is no link, COMMAND_FAILED.
 */
import type { Exec } from '../host/exec.ts'
import { FaasError } from '../values/errors.ts'
import { type Ipv6, parseIpv6 } from '../values/ipv6.ts'
import {
  functionsPrefix,
  isInPrefix,
  quarantinePrefix,
  serverAddress,
  serverLink,
  serverPrefixLength,
} from './addresses.ts'

export interface LinkAddress {
  readonly address: Ipv6
  readonly prefixLength: number
}

export interface LinkState {
  readonly up: boolean
  readonly addresses: readonly LinkAddress[]
  /** Destinations that are routed into the link, as `ip` prints them. */
  readonly routes: readonly string[]
}

const isFunctionAddress = ({ address, prefixLength }: LinkAddress): boolean =>
  prefixLength === 128 && isInPrefix(address, functionsPrefix)

/**
 * The lines for `ip -batch` that lead from `present` to exactly the `wanted` functions' addresses; none when nothing is missing.
 * Additions come first.
 */
export function renderLinkChanges(present: LinkState, wanted: readonly Ipv6[]): string[] {
  const has = new Set(present.addresses.map(({ address }) => address))
  const wants = new Set(wanted)
  const lines: string[] = []
  if (!present.up) lines.push(`link set dev ${serverLink} up`)
  if (!has.has(serverAddress)) {
    lines.push(`address add ${serverAddress}/${serverPrefixLength} dev ${serverLink} nodad`)
  }
  if (!present.routes.includes(quarantinePrefix)) {
    lines.push(`route replace ${quarantinePrefix} dev ${serverLink}`)
  }
  for (const address of wants) {
    if (!has.has(address)) lines.push(`address add ${address}/128 dev ${serverLink} nodad`)
  }
  for (const there of present.addresses) {
    if (isFunctionAddress(there) && !wants.has(there.address)) {
      lines.push(`address del ${there.address}/128 dev ${serverLink}`)
    }
  }
  return lines
}

interface IpAddressJson {
  readonly flags?: readonly string[]
  readonly addr_info?: readonly { readonly local?: string; readonly prefixlen?: number }[]
}

/** Takes the answers of `ip -j -6 address show` and `ip -j -6 route show` for one link apart. */
export function parseLinkState(addressJson: string, routeJson: string): LinkState {
  const links = (JSON.parse(addressJson || '[]') as IpAddressJson[]).filter(
    (link) => link.flags !== undefined,
  )
  const routes = JSON.parse(routeJson || '[]') as { readonly dst?: string }[]
  return {
    up: links.some((link) => link.flags?.includes('UP')),
    addresses: links.flatMap((link) =>
      (link.addr_info ?? []).flatMap(({ local, prefixlen }) =>
        local === undefined || prefixlen === undefined
          ? []
          : [{ address: parseIpv6(local), prefixLength: prefixlen }],
      ),
    ),
    routes: routes.flatMap(({ dst }) => (dst === undefined ? [] : [dst])),
  }
}

export interface Links {
  /** Every IPv6 address of the link. */
  listAddresses(): Promise<readonly LinkAddress[]>
  /**
   * Makes the functions' addresses on the link exactly `wanted`, and puts the server's address, the route to quarantine and
   * the link's being up right where they are not. Idempotent.
   */
  applyAddresses(wanted: readonly Ipv6[]): Promise<void>
  /** Takes every function's address off the link, whoever put it there. A missing link is no error. */
  cleanUp(): Promise<void>
}

/** Drives `ip` (iproute2). */
export function createLinks({ exec }: { readonly exec: Exec }): Links {
  const state = async (): Promise<LinkState> => {
    try {
      const addresses = await exec('ip', ['-j', '-6', 'address', 'show', 'dev', serverLink])
      const routes = await exec('ip', ['-j', '-6', 'route', 'show', 'dev', serverLink])
      return parseLinkState(addresses.stdout, routes.stdout)
    } catch (error) {
      if (error instanceof FaasError && /does not exist|Cannot find device/.test(error.message)) {
        throw new FaasError('NOT_READY', `there is no network link ${serverLink}`, {
          hint: `start WireGuard first: faas up, or systemctl start wg-quick@${serverLink}`,
          cause: error,
        })
      }
      throw error
    }
  }

  const change = (lines: readonly string[]) =>
    exec('ip', ['-6', '-batch', '-'], { input: lines.map((line) => `${line}\n`).join('') })

  const applyAddresses = async (wanted: readonly Ipv6[]): Promise<void> => {
    const lines = renderLinkChanges(await state(), wanted)
    if (lines.length === 0) return
    try {
      await change(lines)
    } catch (error) {
      // Another program may have added or removed one of them between the look and the change; the batch stops there.
      const remaining = renderLinkChanges(await state(), wanted)
      if (remaining.length === 0) return
      if (remaining.join() === lines.join()) throw error
      await change(remaining)
    }
  }

  return {
    listAddresses: async () => (await state()).addresses,
    applyAddresses,
    cleanUp: async () => {
      try {
        const lines = (await state()).addresses
          .filter(isFunctionAddress)
          .map(({ address }) => `address del ${address}/128 dev ${serverLink}`)
        if (lines.length > 0) await change(lines)
      } catch (error) {
        if (!(error instanceof FaasError && error.code === 'NOT_READY')) throw error
      }
    },
  }
}
