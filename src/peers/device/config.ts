/**
 * What a device keeps: one file a network it is a member of, `~/.config/faas/vpn/NAME.json` (0600 in a 0700 directory),
 * with the device's own private key, which is nowhere else; and `~/.config/faas/connected.json`, which says what
 * `connect` did to this machine, so that `disconnect` undoes exactly that, also after a restart or a crash.
 * While a device joins, its key waits in `NAME.joining.json`: asking again with the same key is safe when an answer was lost.
 * A file that is not ours or is damaged is VPN_CONFIG_INVALID.
 */
import { chmod, mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { readTextIfExists, writeFileAtomic } from '../../host/files.ts'
import { FaasError } from '../../values/errors.ts'
import { parseIpv6 } from '../../values/ipv6.ts'
import { type PeerName, parsePeerName } from '../../values/names.ts'
import { parseEndpoint, renderEndpoint } from '../endpoint.ts'
import { type KeyPair, parsePrivateKey, parsePublicKey, publicKeyOf } from '../keys.ts'

const text = z.string().max(300)

const membership = z.strictObject({
  version: z.literal(1),
  name: text.transform(parsePeerName),
  private_key: text.transform(parsePrivateKey),
  address: text.transform(parseIpv6),
  server_public_key: text.transform(parsePublicKey),
  /** `host:port`. */
  endpoint: text.transform((value) => renderEndpoint(parseEndpoint(value))),
  created: z.iso.datetime(),
  /** A function that was there on joining, for the connection test. */
  function: text.optional(),
})
/** One network that this device is a member of. */
export type Membership = z.infer<typeof membership>

const joining = z.strictObject({ version: z.literal(1), private_key: text.transform(parsePrivateKey) })

const dnsUndo = z.discriminatedUnion('by', [
  z.strictObject({ by: z.literal('resolvectl') }),
  z.strictObject({ by: z.literal('resolvconf'), record: text }),
  z.strictObject({ by: z.literal('resolv.conf'), path: text, kept: text }),
  z.strictObject({ by: z.literal('nothing') }),
])
/** How name resolution was set up, as far as undoing it needs to know. */
export type DnsUndo = z.infer<typeof dnsUndo>

const connected = z.strictObject({
  version: z.literal(1),
  name: text.transform(parsePeerName),
  since: z.iso.datetime(),
  dns: dnsUndo,
})
export type Connected = z.infer<typeof connected>

export interface DeviceFiles {
  /** `~/.config/faas/vpn`, where temporary files with keys may lie too. */
  readonly directory: string
  names(): Promise<readonly PeerName[]>
  read(name: PeerName): Promise<Membership | undefined>
  write(membership: Membership): Promise<void>
  remove(name: PeerName): Promise<void>
  /** The key to join with as `name`: the one that waits from an earlier attempt, or `fresh`, which then waits. */
  joiningKey(name: PeerName, fresh: () => KeyPair): Promise<KeyPair>
  /** The membership is written: nothing waits any more. */
  doneJoining(name: PeerName): Promise<void>
  readConnected(): Promise<Connected | undefined>
  writeConnected(connected: Connected | undefined): Promise<void>
}

/** `configDirectory` is `~/.config/faas` (or below XDG_CONFIG_HOME). It is made when something is first written. */
export function createDeviceFiles(configDirectory: string): DeviceFiles {
  const directory = join(configDirectory, 'vpn')
  const pathOf = (name: PeerName): string => join(directory, `${name}.json`)
  const joiningPathOf = (name: PeerName): string => join(directory, `${name}.joining.json`)
  const connectedPath = join(configDirectory, 'connected.json')

  async function write(path: string, content: unknown): Promise<void> {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    await chmod(directory, 0o700)
    await writeFileAtomic(path, `${JSON.stringify(content, undefined, 2)}\n`, { mode: 0o600 })
  }

  return {
    directory,
    async names() {
      const files = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return []
        throw error
      })
      return files
        .filter((file) => /^[a-z0-9-]+\.json$/.test(file))
        .map((file) => parsePeerName(file.slice(0, -'.json'.length)))
        .sort()
    },
    read: (name) => readJson(pathOf(name), membership),
    write: (content) => write(pathOf(content.name), content),
    async remove(name) {
      await rm(pathOf(name), { force: true })
      await rm(joiningPathOf(name), { force: true })
    },
    async joiningKey(name, fresh) {
      const waiting = await readJson(joiningPathOf(name), joining)
      if (waiting) {
        return { privateKey: waiting.private_key, publicKey: publicKeyOf(waiting.private_key) }
      }
      const pair = fresh()
      await write(joiningPathOf(name), { version: 1, private_key: pair.privateKey })
      return pair
    },
    doneJoining: (name) => rm(joiningPathOf(name), { force: true }),
    readConnected: () => readJson(connectedPath, connected),
    async writeConnected(content) {
      if (content === undefined) await rm(connectedPath, { force: true })
      else await write(connectedPath, content)
    },
  }
}

async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const content = await readTextIfExists(path)
  if (content === undefined) return undefined
  try {
    return schema.parse(JSON.parse(content))
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : 'it is no JSON'
    throw new FaasError('VPN_CONFIG_INVALID', `${path} is damaged: ${why}`, {
      hint: `remove it (rm ${path}) and join again with a new code`,
    })
  }
}
