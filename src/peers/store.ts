/**
 * The peers of the network. Their files (peer-file.ts) are the truth; this keeps what was read from them and changes
 * them. When a change resolves, it survives a power cut; telling WireGuard comes after and is the caller's (network.ts).
 * A file that cannot be understood is reported and left as it is: its name stays taken, and so does its address
 * where one can be made out, so that nobody else gets what it stands for.
 */
import { lstat, mkdir, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fsyncDirectory, writeFileAtomic } from '../host/files.ts'
import { type AddressPool, firstFreeAddress, peerPool } from '../net/addresses.ts'
import { FaasError } from '../values/errors.ts'
import { type Ipv6, ipv6Bytes, parseIpv6 } from '../values/ipv6.ts'
import { type PeerName, parsePeerName } from '../values/names.ts'
import { type PublicKey, parsePublicKey } from './keys.ts'
import { type Peer, parsePeerFile, renderPeerFile } from './peer-file.ts'
import { createSerial } from './serial.ts'

/** A file in the peers' directory that is not one peer, and why. */
export interface DamagedPeerFile {
  readonly path: string
  readonly reason: string
}

export interface PeerStore {
  /** By name. */
  list(): readonly Peer[]
  /** What the last {@link reload} could not use. */
  damaged(): readonly DamagedPeerFile[]
  get(name: PeerName): Peer | undefined
  /**
   * Adds a peer with the first free address. The same name with the same key again answers what is there.
   * Throws PEER_KEY_INVALID, PEER_KEY_TAKEN (another peer's key, or the server's), PEER_EXISTS, ADDRESS_POOL_EMPTY.
   */
  add(name: PeerName, publicKey: string): Promise<Peer>
  /** Throws PEER_UNKNOWN. */
  remove(name: PeerName): Promise<void>
  /** Reads the files again: what a person changed by hand counts from here on. */
  reload(): Promise<void>
}

export interface PeerStoreDeps {
  /** `/etc/wireguard/peers`; made, 0700, where it is missing. */
  readonly directory: string
  readonly serverPublicKey: PublicKey
  readonly now: () => Date
  /** Called once for each damaged file, and again when its trouble changes. */
  readonly report: (damage: DamagedPeerFile) => void
  /** Default {@link peerPool}. */
  readonly pool?: AddressPool
}

interface Contents {
  readonly peers: ReadonlyMap<PeerName, Peer>
  readonly damaged: readonly DamagedPeerFile[]
  /** Addresses that damaged files mention. */
  readonly spoken: readonly Ipv6[]
}

const suffix = '.conf'
/** Far more than a peer's file ever has; what is larger is not one. */
const maxFileBytes = 4096

export async function createPeerStore(deps: PeerStoreDeps): Promise<PeerStore> {
  const { directory, now, pool = peerPool } = deps
  const serial = createSerial()
  const reported = new Map<string, string>()
  await mkdir(directory, { recursive: true, mode: 0o700 })
  for (const file of await readdir(directory)) {
    // What a crash left of a write that never counted.
    if (file.startsWith('.') && file.endsWith('.tmp')) await rm(join(directory, file), { force: true })
  }
  let contents: Contents = { peers: new Map(), damaged: [], spoken: [] }

  const pathOf = (name: PeerName): string => join(directory, `${name}${suffix}`)
  const reload = () =>
    serial(async () => {
      contents = await readContents(deps)
      for (const damage of contents.damaged) {
        if (reported.get(damage.path) !== damage.reason) deps.report(damage)
      }
      reported.clear()
      for (const { path, reason } of contents.damaged) reported.set(path, reason)
    })
  await reload()

  async function add(name: PeerName, text: string): Promise<Peer> {
    const publicKey = parsePublicKey(text)
    if (publicKey === deps.serverPublicKey) {
      throw new FaasError('PEER_KEY_TAKEN', "that is the server's own public key", {
        hint: "give the device's own public key",
      })
    }
    const present = contents.peers.get(name)
    if (present?.publicKey === publicKey) return present
    const isDamaged = contents.damaged.some(({ path }) => path === pathOf(name))
    if (present || isDamaged) {
      const reason = isDamaged ? `and its file ${pathOf(name)} is damaged` : 'with another key'
      throw new FaasError('PEER_EXISTS', `a peer named ${name} is there already, ${reason}`, {
        hint: `choose another name, or remove it first: faas vpn remove ${name}`,
      })
    }
    const twin = [...contents.peers.values()].find((peer) => peer.publicKey === publicKey)
    if (twin) {
      throw new FaasError('PEER_KEY_TAKEN', `the peer ${twin.name} has this key already`, {
        hint: 'each device has a key of its own: make a new one',
      })
    }
    const taken = new Set([...[...contents.peers.values()].map((peer) => peer.address), ...contents.spoken])
    const address = firstFreeAddress(pool, taken)
    const peer: Peer = { name, publicKey, address, created: now().toISOString() }
    await writeFileAtomic(pathOf(name), renderPeerFile(peer), { mode: 0o600 })
    contents = { ...contents, peers: sorted([...contents.peers.values(), peer]) }
    return peer
  }

  async function remove(name: PeerName): Promise<void> {
    const damaged = contents.damaged.filter(({ path }) => path !== pathOf(name))
    if (!contents.peers.has(name) && damaged.length === contents.damaged.length) {
      throw new FaasError('PEER_UNKNOWN', `no peer is named ${name}`, {
        hint: 'see them with: faas vpn list',
      })
    }
    await rm(pathOf(name), { force: true })
    await fsyncDirectory(directory)
    const peers = [...contents.peers.values()].filter((peer) => peer.name !== name)
    contents = { ...contents, peers: sorted(peers), damaged }
  }

  return {
    list: () => [...contents.peers.values()],
    damaged: () => contents.damaged,
    get: (name) => contents.peers.get(name),
    add: (name, publicKey) => serial(() => add(name, publicKey)),
    remove: (name) => serial(() => remove(name)),
    reload,
  }
}

const sorted = (peers: readonly Peer[]): ReadonlyMap<PeerName, Peer> =>
  new Map(peers.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map((peer) => [peer.name, peer]))

async function readContents(deps: PeerStoreDeps): Promise<Contents> {
  const { directory, serverPublicKey } = deps
  const read: Peer[] = []
  const damaged: DamagedPeerFile[] = []
  const spoken: Ipv6[] = []
  for (const file of (await readdir(directory)).sort()) {
    if (!file.endsWith(suffix) || file.startsWith('.')) continue
    const path = join(directory, file)
    try {
      read.push(await readPeer(path, parsePeerName(file.slice(0, -suffix.length)), spoken))
    } catch (error) {
      damaged.push({ path, reason: error instanceof Error ? error.message : String(error) })
    }
  }
  // Oldest first: of two files that claim the same, the one that was there before keeps it.
  const peers: Peer[] = []
  for (const peer of read.toSorted((a, b) => (a.created < b.created ? -1 : a.created > b.created ? 1 : 0))) {
    const reason = conflict(peer, peers, serverPublicKey)
    if (reason === undefined) peers.push(peer)
    else damaged.push({ path: join(directory, `${peer.name}${suffix}`), reason })
  }
  return { peers: sorted(peers), damaged, spoken }
}

async function readPeer(path: string, name: PeerName, spoken: Ipv6[]): Promise<Peer> {
  if (!(await lstat(path)).isFile()) throw new Error('not a plain file')
  await using file = await open(path, 'r')
  const { size, mtime } = await file.stat()
  if (size > maxFileBytes) throw new Error(`${size} bytes long, a peer's file has at most ${maxFileBytes}`)
  const text = await file.readFile('utf8')
  try {
    return parsePeerFile(name, text, mtime)
  } catch (error) {
    for (const [candidate] of text.matchAll(/fd00:[0-9a-f:]+/gi)) {
      if (isAddress(candidate)) spoken.push(parseIpv6(candidate))
    }
    throw error
  }
}

function isAddress(text: string): boolean {
  try {
    return ipv6Bytes(text).length === 16
  } catch {
    return false
  }
}

function conflict(peer: Peer, others: readonly Peer[], serverPublicKey: PublicKey): string | undefined {
  const bytes = ipv6Bytes(peer.address)
  const { first, last } = peerPool
  if (bytes.compare(ipv6Bytes(first)) < 0 || bytes.compare(ipv6Bytes(last)) > 0) {
    return `${peer.address} is no peer's address (${first} to ${last})`
  }
  if (peer.publicKey === serverPublicKey) return "it has the server's own key"
  const twin = others.find(
    ({ publicKey, address }) => publicKey === peer.publicKey || address === peer.address,
  )
  if (!twin) return undefined
  return `it has the ${twin.publicKey === peer.publicKey ? 'key' : 'address'} of the peer ${twin.name}`
}
