/**
 * The server's files in /etc/wireguard: `server_private.key`, `server_public.key`, `wg0.conf`, `peers/`.
 * A private key that is there is always kept: every peer's configuration hangs on it. A `wg0.conf` without our marker is its writer's
 * and is used as it is. Failure: WIREGUARD_CONFIG_REFUSED where the files contradict each other or serve something else.
 */
import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { readTextIfExists, writeFileAtomic } from '../host/files.ts'
import { FaasError } from '../values/errors.ts'
import { serverAddress, serverLink, serverPrefixLength, wireguardPort } from './addresses.ts'
import { decodeKey, generatePrivateKey, publicKeyOf } from './keys.ts'
import { isSameAddress } from './wireguard-dump.ts'

/** Where the guide and wg-quick have them. */
export const wireguardDirectory = '/etc/wireguard'

const marker = '# Written by faasd, which may write it anew. Remove this line to keep the file as your own.'

export interface ServerConfig {
  readonly privateKey: string
  /** UDP. */
  readonly listenPort: number
  /** Where the peers' files lie; named in a comment. */
  readonly directory: string
}

/** The text of `wg0.conf` (wg-quick(8)). Peers are not in it: faasd sets them on the running link. */
export function renderServerConfig({ privateKey, listenPort, directory }: ServerConfig): string {
  return `${marker}
[Interface]
Address = ${serverAddress}/${serverPrefixLength}
ListenPort = ${listenPort}
PrivateKey = ${privateKey}

# IPv6 forwarding. What may pass is decided by the nftables table "inet faasd", so no ip6tables rules are needed here.
PostUp = sysctl -w net.ipv6.conf.all.forwarding=1

# Peer configs are in ${directory}/peers/*.conf; faasd applies them to the running link.
`
}

interface ParsedConfig {
  readonly ours: boolean
  readonly privateKey: string | undefined
  readonly addresses: readonly string[]
}

/** What matters here of a `wg0.conf`, whoever wrote it. Keys are case-insensitive (wg(8)). */
export function parseServerConfig(text: string): ParsedConfig {
  let section = ''
  let privateKey: string | undefined
  const addresses: string[] = []
  for (const line of text.split('\n')) {
    const plain = line.replace(/#.*/, '').trim()
    const heading = /^\[(\w+)\]$/.exec(plain)
    if (heading) section = heading[1]?.toLowerCase() ?? ''
    const [, key = '', value = ''] = /^(\w+)\s*=\s*(.*)$/.exec(plain) ?? []
    if (section !== 'interface') continue
    if (key.toLowerCase() === 'privatekey') privateKey = value
    if (key.toLowerCase() === 'address') addresses.push(...value.split(',').map((part) => part.trim()))
  }
  return { ours: text.startsWith(marker), privateKey, addresses }
}

export interface ServerFiles {
  readonly publicKey: string
  /** False where `wg0.conf` is the user's own and was left as it is. */
  readonly configIsOurs: boolean
}

export interface ServerFilesOptions {
  readonly directory?: string
  /** UDP. Default 51820. */
  readonly listenPort?: number
}

const refuse = (message: string, hint: string): FaasError =>
  new FaasError('WIREGUARD_CONFIG_REFUSED', message, { hint })

/**
 * Puts the server's files right: makes what is missing, keeps what is there, and writes `wg0.conf` only where there is none or where
 * ours has changed. Idempotent; safe after a crash between any two of its writes.
 */
export async function ensureServerFiles({
  directory = wireguardDirectory,
  listenPort = wireguardPort,
}: ServerFilesOptions = {}): Promise<ServerFiles> {
  const privateKeyPath = join(directory, 'server_private.key')
  const publicKeyPath = join(directory, 'server_public.key')
  const configPath = join(directory, `${serverLink}.conf`)
  await mkdir(join(directory, 'peers'), { recursive: true, mode: 0o700 })

  const configText = await readTextIfExists(configPath)
  const config = configText === undefined ? undefined : parseServerConfig(configText)
  if (config && !config.ours && !config.addresses.some((address) => isSameAddress(address, serverAddress))) {
    throw refuse(
      `${configPath} is not faasd's: it has no Address = ${serverAddress}/${serverPrefixLength}`,
      `another WireGuard network uses ${serverLink}: move it to another interface name and try again`,
    )
  }

  const stored = (await readTextIfExists(privateKeyPath))?.trim()
  if (stored !== undefined && decodeKey(stored) === undefined) {
    throw refuse(
      `${privateKeyPath} holds no WireGuard key`,
      'restore it from a backup; faasd never replaces it, since every device knows the server by it',
    )
  }
  if (config && !config.ours && stored !== undefined && config.privateKey !== stored) {
    throw refuse(
      `${configPath} and ${privateKeyPath} have different private keys`,
      'keep the one whose public key your devices know, and put it into both files',
    )
  }
  const privateKey = stored ?? config?.privateKey ?? generatePrivateKey()
  if (decodeKey(privateKey) === undefined) {
    throw refuse(`${configPath} has no usable PrivateKey`, 'put the server key into it, or remove the file')
  }

  // The key first: once it is on the disk, the rest follows from it.
  if (stored === undefined) await writeFileAtomic(privateKeyPath, `${privateKey}\n`, { mode: 0o600 })
  else await chmod(privateKeyPath, 0o600)
  const publicKey = publicKeyOf(privateKey)
  if ((await readTextIfExists(publicKeyPath))?.trim() !== publicKey) {
    await writeFileAtomic(publicKeyPath, `${publicKey}\n`)
  }
  const wantedText = renderServerConfig({ privateKey, listenPort, directory })
  if (config === undefined || (config.ours && configText !== wantedText)) {
    await writeFileAtomic(configPath, wantedText, { mode: 0o600 })
  }
  return { publicKey, configIsOurs: config?.ours ?? true }
}
