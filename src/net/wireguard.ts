/**
 * The server's WireGuard link, `wg0`: brought up and down by wg-quick, which takes wireguard-go by itself where the kernel has no
 * WireGuard; its peers are set by differences, so that a session is never disturbed by another peer's coming or going.
 * Failures: PROGRAM_MISSING, COMMAND_FAILED, COMMAND_TIMEOUT, WIREGUARD_CONFIG_REFUSED.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Exec } from '../host/exec.ts'
import { FaasError } from '../values/errors.ts'
import type { Ipv6 } from '../values/ipv6.ts'
import { serverAddress, serverLink } from './addresses.ts'
import { parseDump, type WireguardDump, type WireguardPeer } from './wireguard-dump.ts'
import { wireguardDirectory } from './wireguard-files.ts'

/** A peer as it is wanted: its key, and the one address that it may send from and is reached at. */
export interface PeerRoute {
  readonly publicKey: string
  readonly address: Ipv6
  /** Where it was last heard from (`ADDRESS:PORT`): for a peer that the link does not have yet, so that the server can speak first. */
  readonly endpoint?: string | undefined
}

/** Peers in one `wg set`: far below the kernel's limit on a command's arguments. */
const peersInOneCommand = 500
/** What `wg` prints for a link without a key. */
const noKey = '(none)'
/** A wireguard-go that does not answer is not waited for longer. */
const answerTimeoutMs = 5_000

/** The arguments behind `wg set wg0` that lead from `present` to exactly `wanted`, one list a peer; removals come first. */
export function renderPeerChanges(
  present: readonly WireguardPeer[],
  wanted: readonly PeerRoute[],
): readonly (readonly string[])[] {
  const wantedByKey = new Map(wanted.map((peer) => [peer.publicKey, peer]))
  const presentByKey = new Map(present.map((peer) => [peer.publicKey, peer.allowedIps.join()]))
  const removals = [...presentByKey.keys()]
    .filter((key) => !wantedByKey.has(key))
    .map((key) => ['peer', key, 'remove'])
  const settings = [...wantedByKey.values()]
    .filter(({ publicKey, address }) => presentByKey.get(publicKey) !== `${address}/128`)
    .map(({ publicKey, address, endpoint }) => {
      const known = endpoint === undefined || presentByKey.has(publicKey) ? [] : ['endpoint', endpoint]
      return ['peer', publicKey, ...known, 'allowed-ips', `${address}/128`]
    })
  return [...removals, ...settings]
}

export interface Wireguard {
  /**
   * Brings the link up with the server's key. A link that runs with that key is left as it is; one of ours that is broken or has
   * another key is made anew. Throws WIREGUARD_CONFIG_REFUSED for a link of that name that is somebody else's.
   */
  up(publicKey: string): Promise<void>
  /** Takes the link down, in whatever state it is. Idempotent. */
  down(): Promise<void>
  exists(): Promise<boolean>
  /** Who carries the packets, or undefined when there is no link. */
  kind(): Promise<'kernel' | 'userspace' | undefined>
  /** Makes the link's peers exactly `peers`; those that stay as they are keep their sessions and endpoints. Idempotent. */
  applyPeers(peers: readonly PeerRoute[]): Promise<void>
  dump(): Promise<WireguardDump>
  /** Same as {@link Wireguard.down}: the link's name is all it needs. */
  cleanUp(): Promise<void>
}

export interface WireguardDeps {
  readonly exec: Exec
  /** Where `wg0.conf` lies. Default /etc/wireguard. */
  readonly directory?: string
  /** Where wireguard-go keeps its control sockets. */
  readonly socketDirectory?: string
}

interface IpLinkJson {
  readonly linkinfo?: { readonly info_kind?: string }
  readonly addr_info?: readonly { readonly local?: string }[]
}

/** Drives `wg`, `wg-quick` and `ip`. */
export function createWireguard({
  exec,
  directory = wireguardDirectory,
  socketDirectory = '/var/run/wireguard',
}: WireguardDeps): Wireguard {
  // wg-quick finds /etc/wireguard/wg0.conf by the interface's name, and any other file by its path.
  const config = directory === wireguardDirectory ? serverLink : join(directory, `${serverLink}.conf`)

  const link = async (): Promise<IpLinkJson | undefined> => {
    const { stdout, code } = await exec('ip', ['-d', '-j', 'address', 'show', 'dev', serverLink], {
      okCodes: [0, 1],
    })
    if (code !== 0) return undefined
    return (JSON.parse(stdout || '[]') as IpLinkJson[]).find((entry) => entry.linkinfo !== undefined)
  }

  const dump = async (): Promise<WireguardDump> =>
    parseDump((await exec('wg', ['show', serverLink, 'dump'], { timeoutMs: answerTimeoutMs })).stdout)

  const down = async (): Promise<void> => {
    if ((await link()) !== undefined) {
      // wg-quick undoes what a user's own PostDown lines undo; a link in a state that it refuses is deleted all the same.
      await exec('wg-quick', ['down', config]).catch(ignoreFailedCommand)
    }
    if ((await link()) !== undefined) await exec('ip', ['link', 'delete', 'dev', serverLink])
    // A wireguard-go that was killed leaves its socket behind.
    await rm(join(socketDirectory, `${serverLink}.sock`), { force: true })
  }

  const up = async (publicKey: string): Promise<void> => {
    const present = await link()
    if (present !== undefined) {
      const running = await dump().catch(ignoreFailedCommand)
      if (running?.publicKey === publicKey) return
      // Without a key it is what a wg-quick that was killed half-way left.
      const foreign = running?.publicKey !== noKey
      if (foreign && !present.addr_info?.some(({ local }) => local === serverAddress)) {
        throw new FaasError(
          'WIREGUARD_CONFIG_REFUSED',
          `there is a link ${serverLink} that is not faasd's: it has no address ${serverAddress}`,
          { hint: `look at it with \`ip address show dev ${serverLink}\`, then rename or delete it` },
        )
      }
    }
    await down()
    await exec('wg-quick', ['up', config])
  }

  return {
    up,
    down,
    cleanUp: down,
    dump,
    exists: async () => (await link()) !== undefined,
    kind: async () => {
      const present = await link()
      if (present === undefined) return undefined
      return present.linkinfo?.info_kind === 'wireguard' ? 'kernel' : 'userspace'
    },
    applyPeers: async (peers) => {
      const changes = renderPeerChanges((await dump()).peers, peers)
      for (let start = 0; start < changes.length; start += peersInOneCommand) {
        await exec('wg', ['set', serverLink, ...changes.slice(start, start + peersInOneCommand).flat()])
      }
    },
  }
}

function ignoreFailedCommand(error: unknown): undefined {
  if (error instanceof FaasError && (error.code === 'COMMAND_FAILED' || error.code === 'COMMAND_TIMEOUT'))
    return
  throw error
}
