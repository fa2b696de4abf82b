/**
 * The private network's members, as faasd sees them: devices are added, invited, listed and removed, and WireGuard is
 * told. Every change is one order: check, commit the file, tell WireGuard, answer; so what was answered survives,
 * and `reconcile` finishes what a crash left between. The same request again gives the same answer.
 *
 * An invitation binds to the first key that joins with it. That key may ask again, because an answer can be lost; its
 * one-time key is closed when the device has shaken hands with its own key, or when the invitation expires.
 *
 * A WireGuard that was made anew is told where its peers were last heard from (endpoint-memory.ts), and speaks to them first.
 */
import type { Clock } from '../host/clock.ts'
import type { PeerRoute, Wireguard } from '../net/wireguard.ts'
import type { WireguardDump } from '../net/wireguard-dump.ts'
import { FaasError } from '../values/errors.ts'
import type { Ipv6 } from '../values/ipv6.ts'
import type { PeerName } from '../values/names.ts'
import { encodeCode } from './code.ts'
import { type FoundEndpoint, renderEndpoint } from './endpoint.ts'
import type { EndpointMemory } from './endpoint-memory.ts'
import type { Invitation, Invitations } from './invitations.ts'
import type { PublicKey } from './keys.ts'
import { nudgeByUdp } from './nudge.ts'
import type { Peer } from './peer-file.ts'
import { createSerial } from './serial.ts'
import type { PeerStore } from './store.ts'

/** What a device needs to configure itself. */
export interface Registration {
  readonly ipv6: Ipv6
  readonly server_public_key: PublicKey
  /** `host:port`. */
  readonly endpoint: string
}

/** What a device gets from the join service. */
export interface JoinAnswer extends Registration {
  readonly name: PeerName
  /** A function to try the connection with, where one is deployed. */
  readonly function?: string
}

/** `connected`: a handshake within three minutes (WireGuard's own REJECT_AFTER_TIME); `unknown`: WireGuard is down. */
export type PeerStatus = 'connected' | 'idle' | 'never' | 'unknown'

export interface PeerNetwork extends AsyncDisposable {
  create(name: PeerName, publicKey: string): Promise<Registration>
  list(): Promise<readonly { name: PeerName; ipv6: Ipv6; created: string; status: PeerStatus }[]>
  /** Removes a peer, and closes an open invitation of that name. Throws PEER_UNKNOWN when there is neither. */
  remove(name: PeerName): Promise<void>
  /** Throws PEER_EXISTS, ENDPOINT_UNKNOWN, ADDRESS_POOL_EMPTY. `warning` is about the endpoint. */
  invite(name: PeerName): Promise<{ code: string; expires: string; warning?: string }>
  /** For the join service: `source` is the caller's address, which WireGuard has proved. Throws INVITATION_INVALID. */
  redeem(source: Ipv6, publicKey: string): Promise<JoinAnswer>
  /** Reads the peers' files, drops what has expired and makes WireGuard's peers those of the files. */
  reconcile(): Promise<void>
}

export interface PeerNetworkDeps {
  readonly store: PeerStore
  readonly invitations: Invitations
  readonly wireguard: Pick<Wireguard, 'applyPeers' | 'dump'>
  readonly serverPublicKey: PublicKey
  readonly endpoints: EndpointMemory
  readonly findEndpoint: () => Promise<FoundEndpoint>
  /** The name of some deployed function, if there is one. */
  readonly someFunction?: () => string | undefined
  readonly clock: Clock
  readonly report: (message: string) => void
  /** Default one hour. */
  readonly invitationTtlMs?: number
  /** Sends something to an address, whatever it is, so that WireGuard shakes hands. */
  readonly nudge?: (address: Ipv6) => void
}

const connectedMs = 180_000
const hourMs = 3_600_000
/** How often WireGuard is looked at while a device is expected for the first time, or after `wg` has failed. */
const soonMs = 1_000
/** How long a new peer is expected. */
const newcomerMs = 120_000
/** How often endpoints and expiry are looked at. Devices' keepalives are 25 s apart. */
const lookMs = 20_000

export function createPeerNetwork(deps: PeerNetworkDeps): PeerNetwork {
  const { store, invitations, wireguard, serverPublicKey, endpoints, clock, nudge = nudgeByUdp } = deps
  const serial = createSerial()
  let timer: NodeJS.Timeout | undefined
  let isStopped = false
  /** Whether WireGuard is known to have the peers that the files have. */
  let isApplied = false

  const isOver = (invitation: Invitation): boolean => Date.parse(invitation.expires) <= clock.now().getTime()

  const wantedRoutes = (): readonly PeerRoute[] => {
    const open = invitations.list().filter((invitation) => !isOver(invitation))
    return [...store.list(), ...open].map(({ publicKey, address }) => {
      return { publicKey, address, endpoint: endpoints.get(publicKey) }
    })
  }

  async function look(): Promise<WireguardDump> {
    const dump = await wireguard.dump()
    await endpoints.learn(dump, new Set(store.list().map(({ publicKey }) => publicKey)))
    return dump
  }

  async function apply(): Promise<void> {
    isApplied = false
    const present = new Set((await look()).peers.map(({ publicKey }) => publicKey))
    const routes = wantedRoutes()
    await wireguard.applyPeers(routes)
    isApplied = true
    for (const { publicKey, address, endpoint } of routes) {
      if (endpoint !== undefined && !present.has(publicKey)) nudge(address)
    }
  }

  /** One change; whatever comes of it, what remains to be done later is planned. */
  const change = <T>(task: () => Promise<T>): Promise<T> => serial(() => task().finally(plan))

  function plan(): void {
    clearTimeout(timer)
    const open = invitations.list()
    if (isStopped || (isApplied && open.length === 0 && store.list().length === 0)) return
    const nowMs = clock.now().getTime()
    const isExpected = (peer: Peer): boolean =>
      endpoints.get(peer.publicKey) === undefined && nowMs - Date.parse(peer.created) < newcomerMs
    const isSoon = !isApplied || store.list().some(isExpected) || open.some(({ redeemedBy }) => redeemedBy)
    const waitMs = isSoon
      ? soonMs
      : Math.min(lookMs, ...open.map(({ expires }) => Date.parse(expires) - nowMs))
    timer = setTimeout(() => void change(sweep).catch(reportSweep), Math.max(waitMs, 100)).unref()
  }

  let lastTrouble = ''
  const reportSweep = (error: unknown): void => {
    const trouble = error instanceof Error ? error.message : String(error)
    if (trouble !== lastTrouble) deps.report(`peers are not as they should be, trying again: ${trouble}`)
    lastTrouble = trouble
  }

  async function sweep(): Promise<void> {
    const { peers } = await look()
    const arrived = new Set<string>(
      peers.filter((peer) => peer.latestHandshakeSeconds !== undefined).map((peer) => peer.publicKey),
    )
    const closed = await invitations.close(
      (invitation) =>
        isOver(invitation) || (invitation.redeemedBy !== undefined && arrived.has(invitation.redeemedBy)),
    )
    if (closed.length > 0 || !isApplied) await apply()
    lastTrouble = ''
  }

  function refuseOneTimeKey(publicKey: string): void {
    if (!invitations.list().some((invitation) => invitation.publicKey === publicKey)) return
    throw new FaasError('PEER_KEY_TAKEN', 'that is the one-time key of an invitation', {
      hint: "give the device's own public key",
    })
  }

  return {
    create: (name, publicKey) =>
      change(async () => {
        refuseOneTimeKey(publicKey)
        const { endpoint } = await deps.findEndpoint()
        const peer = await store.add(name, publicKey)
        await apply()
        return { ipv6: peer.address, server_public_key: serverPublicKey, endpoint: renderEndpoint(endpoint) }
      }),

    async list() {
      const dump = await wireguard.dump().catch(() => undefined)
      const handshakes = new Map(dump?.peers.map((peer) => [peer.publicKey, peer.latestHandshakeSeconds]))
      const nowMs = clock.now().getTime()
      return store.list().map(({ name, address, created, publicKey }) => {
        const status = dump ? statusOf(handshakes.get(publicKey), nowMs) : 'unknown'
        return { name, ipv6: address, created, status }
      })
    },

    remove: (name) =>
      change(async () => {
        isApplied = false
        const closed = await invitations.close((invitation) => invitation.name === name)
        try {
          await store.remove(name)
        } catch (error) {
          if (closed.length === 0 || !(error instanceof FaasError) || error.code !== 'PEER_UNKNOWN')
            throw error
        }
        await apply()
      }),

    invite: (name) =>
      change(async () => {
        if (store.get(name)) {
          throw new FaasError('PEER_EXISTS', `a peer named ${name} is there already`, {
            hint: `choose another name, or remove it first: faas vpn remove ${name}`,
          })
        }
        const { endpoint, warning } = await deps.findEndpoint()
        const expires = new Date(clock.now().getTime() + (deps.invitationTtlMs ?? hourMs))
        const rendered = renderEndpoint(endpoint)
        const { invitation, oneTimePrivateKey } = await invitations.open({
          name,
          endpoint: rendered,
          expires,
        })
        await apply()
        const { address } = invitation
        const code = encodeCode({ name, endpoint, serverPublicKey, oneTimePrivateKey, address, expires })
        return {
          code,
          expires: invitation.expires,
          ...(warning === undefined ? {} : { warning }),
        }
      }),

    redeem: (source, publicKey) =>
      change(async () => {
        const invitation = invitations.list().find(({ address }) => address === source)
        if (!invitation || isOver(invitation)) throw refused('no invitation is open at this address')
        const { name, redeemedBy, endpoint } = invitation
        if (redeemedBy !== undefined && redeemedBy !== publicKey)
          throw refused('another device has used this code')
        refuseOneTimeKey(publicKey)
        isApplied = false
        const peer = await store.add(name, publicKey)
        if (redeemedBy === undefined) await invitations.redeem(source, peer.publicKey)
        await apply()
        const tryThis = deps.someFunction?.()
        return {
          name,
          ipv6: peer.address,
          server_public_key: serverPublicKey,
          endpoint,
          ...(tryThis === undefined ? {} : { function: tryThis }),
        }
      }),

    reconcile: () =>
      change(async () => {
        await store.reload()
        isApplied = false
        await apply()
        await sweep()
      }),

    async [Symbol.asyncDispose]() {
      isStopped = true
      clearTimeout(timer)
      await serial(async () => void (await look().catch(() => {})))
    },
  }
}

function statusOf(latestHandshakeSeconds: number | undefined, nowMs: number): PeerStatus {
  if (latestHandshakeSeconds === undefined) return 'never'
  return nowMs - latestHandshakeSeconds * 1000 < connectedMs ? 'connected' : 'idle'
}

const refused = (why: string): FaasError =>
  new FaasError('INVITATION_INVALID', why, { hint: 'ask for a new code: faas vpn invite NAME' })
