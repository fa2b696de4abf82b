/**
 * The device's WireGuard link, `wg-faas`: kernel WireGuard, else wireguard-go. It has one peer, the server, to which all of
 * fd00:faa5::/32 is routed; nothing else of the device's traffic is touched. Keys reach `wg` in a 0600 file that is
 * removed at once, never in an argument list. Deleting the link takes its address, routes and wireguard-go with it.
 * Failures: NOT_ROOT, PROGRAM_MISSING, COMMAND_FAILED.
 */
import { access, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../../host/eventually.ts'
import type { Exec } from '../../host/exec.ts'
import { removeTree } from '../../host/files.ts'
import { deviceLink, platformPrefix } from '../../net/addresses.ts'
import { parseDump, type WireguardDump } from '../../net/wireguard-dump.ts'
import { FaasError } from '../../values/errors.ts'
import type { Ipv6 } from '../../values/ipv6.ts'
import type { PrivateKey, PublicKey } from '../keys.ts'

/** Of the link; packets on the way are 80 bytes larger (IPv6 40, UDP 8, WireGuard 32). */
const largestMtu = 1420
const smallestMtu = 1280
const overheadBytes = 80
/** Keeps the way back open through NAT and firewalls. */
const keepaliveSeconds = 25

export interface LinkConfig {
  readonly privateKey: PrivateKey
  readonly address: Ipv6
  readonly serverPublicKey: PublicKey
  /** With a numeric address: `203.0.113.10:51820` or `[2001:db8::1]:51820`. */
  readonly endpoint: { readonly host: string; readonly port: number }
}

export interface DeviceLink {
  exists(): Promise<boolean>
  create(signal?: AbortSignal): Promise<'kernel' | 'wireguard-go'>
  /** Gives the link its keys, address and route, and brings it up. May be repeated with other values. */
  configure(config: LinkConfig, signal?: AbortSignal): Promise<{ mtu: number }>
  dump(): Promise<WireguardDump>
  /** Idempotent. */
  delete(): Promise<void>
}

export interface DeviceLinkDeps {
  readonly exec: Exec
  /** A directory of this user's for the short-lived file with the key; made 0700 where it is missing. */
  readonly privateDirectory: string
  /** Where wireguard-go keeps its control sockets. */
  readonly socketDirectory?: string
}

/** What `wg setconf` reads (wg(8)). */
export const renderLinkConfig = ({ privateKey, serverPublicKey, endpoint }: LinkConfig): string =>
  `[Interface]
PrivateKey = ${privateKey}

[Peer]
PublicKey = ${serverPublicKey}
AllowedIPs = ${platformPrefix}
Endpoint = ${endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host}:${endpoint.port}
PersistentKeepalive = ${keepaliveSeconds}
`

/** The link's MTU where packets leave through a link of `outerMtu`. */
export const mtuWithin = (outerMtu: number): number =>
  Math.min(largestMtu, Math.max(smallestMtu, outerMtu - overheadBytes))

export function createDeviceLink({
  exec,
  privateDirectory,
  socketDirectory = '/var/run/wireguard',
}: DeviceLinkDeps): DeviceLink {
  const socket = join(socketDirectory, `${deviceLink}.sock`)
  const ip = (args: readonly string[], signal?: AbortSignal) => exec('ip', args, signal ? { signal } : {})

  const exists = async (): Promise<boolean> => {
    const { code } = await exec('ip', ['link', 'show', 'dev', deviceLink], { okCodes: [0, 1] })
    return code === 0
  }

  async function outerMtu(host: string): Promise<number> {
    const family = host.includes(':') ? '-6' : '-4'
    const route = await exec('ip', [family, '-json', 'route', 'get', host], { okCodes: [0, 1, 2] })
    if (route.code !== 0) return largestMtu + overheadBytes
    const [found] = JSON.parse(route.stdout) as { dev?: string }[]
    if (found?.dev === undefined) return largestMtu + overheadBytes
    const link = await exec('ip', ['-json', 'link', 'show', 'dev', found.dev])
    const [outer] = JSON.parse(link.stdout) as { mtu?: number }[]
    return outer?.mtu ?? largestMtu + overheadBytes
  }

  async function setKeys(config: LinkConfig, signal?: AbortSignal): Promise<void> {
    await mkdir(privateDirectory, { recursive: true, mode: 0o700 })
    const directory = await mkdtemp(join(privateDirectory, '.setconf-'))
    try {
      const path = join(directory, 'link.conf')
      await writeFile(path, renderLinkConfig(config), { mode: 0o600, flag: 'wx' })
      await exec('wg', ['setconf', deviceLink, path], signal ? { signal } : {})
    } finally {
      await removeTree(directory)
    }
  }

  return {
    exists,

    async create(signal) {
      try {
        await ip(['link', 'add', deviceLink, 'type', 'wireguard'], signal)
        return 'kernel'
      } catch (error) {
        if (!(error instanceof FaasError) || error.code !== 'COMMAND_FAILED' || signal?.aborted) throw error
        if (/Operation not permitted/.test(error.message)) throw needsRoot(error)
        await startWireguardGo(exec, error, signal)
        return 'wireguard-go'
      }
    },

    async configure(config, signal) {
      const mtu = mtuWithin(await outerMtu(config.endpoint.host))
      await setKeys(config, signal)
      await ip(['-6', 'address', 'flush', 'dev', deviceLink, 'scope', 'global'], signal)
      await ip(['-6', 'address', 'add', `${config.address}/128`, 'dev', deviceLink, 'nodad'], signal)
      await ip(['link', 'set', 'dev', deviceLink, 'mtu', String(mtu), 'up'], signal)
      await ip(['-6', 'route', 'replace', platformPrefix, 'dev', deviceLink], signal)
      return { mtu }
    },

    dump: async () =>
      parseDump((await exec('wg', ['show', deviceLink, 'dump'], { timeoutMs: 5_000 })).stdout),

    async delete() {
      // Not the caller's signal: what was made is taken away also after Ctrl-C.
      if (await exists()) {
        await exec('ip', ['link', 'delete', 'dev', deviceLink]).catch(async (error: unknown) => {
          // wireguard-go, ended from outside, may have taken it away in this very moment.
          if (await exists()) throw error
        })
      }
      // wireguard-go removes its socket as the last thing it does; one that was killed leaves it behind.
      await eventually('wireguard-go has ended', () => absent(socket), { timeoutMs: 2_000 }).catch(() =>
        rm(socket, { force: true }),
      )
    },
  }
}

/** In a session of its own: Ctrl-C in the terminal that connected must not end the connection later. */
async function startWireguardGo(exec: Exec, kernel: FaasError, signal?: AbortSignal): Promise<void> {
  const missing = 127
  const { code } = await exec('setsid', ['wireguard-go', deviceLink], {
    okCodes: [0, missing],
    ...(signal ? { signal } : {}),
  })
  if (code === missing) {
    throw new FaasError('PROGRAM_MISSING', 'the kernel has no WireGuard, and wireguard-go is not installed', {
      hint: 'install it (apt install wireguard-go), or load the kernel module (modprobe wireguard)',
      cause: kernel,
    })
  }
}

async function absent(path: string): Promise<void> {
  const isThere = await access(path).then(
    () => true,
    () => false,
  )
  if (isThere) throw new Error(`${path} is still there`)
}

export const needsRoot = (cause?: unknown): FaasError =>
  new FaasError('NOT_ROOT', 'making a network link needs root', {
    hint: 'run it again with sudo',
    cause,
  })
