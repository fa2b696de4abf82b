/**
 * `faas vpn connect`, from top to bottom: get a membership (by an invitation code, by the API, or the one that is kept),
 * set the link up with it, test it. Whatever fails or is interrupted half-way leaves no link, no route and no changed
 * resolver; the device's key is kept where the server may know it already.
 * Failures: VPN_CONNECTED, INVITATION_INVALID, VPN_UNREACHABLE, NOT_ROOT, PROGRAM_MISSING, and the reason of an aborted signal.
 */
import { ADDRCONFIG } from 'node:dns'
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { deviceLink, platformPrefix } from '../../net/addresses.ts'
import { FaasError, toFaasError } from '../../values/errors.ts'
import { type Ipv6, parseIpv6 } from '../../values/ipv6.ts'
import type { PeerName } from '../../values/names.ts'
import type { InvitationCode } from '../code.ts'
import { type Endpoint, parseEndpoint, renderEndpoint } from '../endpoint.ts'
import { generateKeyPair, type PrivateKey, type PublicKey, parsePublicKey } from '../keys.ts'
import type { Membership } from './config.ts'
import type { DeviceDeps } from './device.ts'
import { disconnect } from './disconnect.ts'
import { requestMembership } from './join.ts'
import { dnsInstruction } from './resolution.ts'
import { testTunnel, waitForHandshake } from './tunnel-test.ts'

export interface ConnectOptions {
  readonly writeResolvConf: boolean
  readonly signal: AbortSignal
}

/** What the API answers to a registration, and a function to test with. */
export interface Registered {
  readonly ipv6: string
  readonly server_public_key: string
  /** `host:port`. */
  readonly endpoint: string
  readonly function?: string | undefined
}
export type Register = (name: PeerName, publicKey: PublicKey) => Promise<Registered>

export interface Connection {
  readonly membership: Membership
  readonly implementation: 'kernel' | 'wireguard-go'
  readonly mtu: number
  readonly dns: string
}

/** Joins with an invitation, then connects. */
export async function connectWithCode(
  code: InvitationCode,
  deps: DeviceDeps,
  options: ConnectOptions,
): Promise<Connection> {
  const { files, say } = deps
  const present = await files.readConnected()
  if (present && (await deps.link.exists())) {
    throw new FaasError('VPN_CONNECTED', `this device is connected already, as ${present.name}`, {
      hint: 'disconnect first: faas vpn disconnect',
    })
  }
  const { name } = code
  const pair = await files.joiningKey(name, generateKeyPair)
  say(`- Generates keypair: ${pair.publicKey}`)
  return withLink(deps, async (implementation) => {
    const { private_key, ...membership } = await joinThroughQuarantine(code, pair, deps, options.signal)
    say(`- Registers with server: ${membership.name} is ${membership.address}`)
    await keep({ ...membership, private_key }, deps)
    return bringUp({ ...membership, private_key }, implementation, deps, options)
  })
}

/** Registers by the API of the server (on it, or through ssh), then connects. */
export async function connectByRegistering(
  name: PeerName,
  register: Register,
  deps: DeviceDeps,
  options: ConnectOptions,
): Promise<Connection> {
  const pair = await deps.files.joiningKey(name, generateKeyPair)
  deps.say(`- Generates keypair: ${pair.publicKey}`)
  const registered = await register(name, pair.publicKey)
  options.signal.throwIfAborted()
  deps.say(`- Registers with server: ${name} is ${registered.ipv6}`)
  const membership: Membership = {
    version: 1,
    name,
    private_key: pair.privateKey,
    address: parseIpv6(registered.ipv6),
    server_public_key: parsePublicKey(registered.server_public_key),
    endpoint: registered.endpoint,
    created: deps.clock.now().toISOString(),
    ...(registered.function === undefined ? {} : { function: registered.function }),
  }
  await keep(membership, deps)
  return withLink(deps, (implementation) => bringUp(membership, implementation, deps, options))
}

/** Connects again with what is kept: the same key and the same address. */
export async function reconnect(
  membership: Membership,
  deps: DeviceDeps,
  options: ConnectOptions,
): Promise<Connection> {
  deps.say(`- Keeps its keypair and address: ${membership.name} is ${membership.address}`)
  return withLink(deps, (implementation) => bringUp(membership, implementation, deps, options))
}

async function keep(membership: Membership, { files }: DeviceDeps): Promise<void> {
  await files.write(membership)
  await files.doneJoining(membership.name)
}

/** Runs `body` with a new link; unless it succeeds, everything that was set up is taken away again. */
async function withLink<T>(
  deps: DeviceDeps,
  body: (implementation: 'kernel' | 'wireguard-go') => Promise<T>,
): Promise<T> {
  await disconnect(deps)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => disconnect(deps).then(() => {}))
  const implementation = await deps.link.create()
  const result = await body(implementation)
  undo.move()
  return result
}

async function joinThroughQuarantine(
  code: InvitationCode,
  pair: { privateKey: PrivateKey; publicKey: PublicKey },
  deps: DeviceDeps,
  signal: AbortSignal,
): Promise<Membership> {
  const { clock } = deps
  const { serverPublicKey, oneTimePrivateKey, address, endpoint } = code
  const reached = await reach(
    { privateKey: oneTimePrivateKey, serverPublicKey, address },
    endpoint,
    deps,
    signal,
  )
  if (!reached) throw await unanswered(code, deps)
  const joined = await requestMembership(pair.publicKey, { from: address, clock, signal })
  return {
    version: 1,
    name: joined.name,
    private_key: pair.privateKey,
    address: joined.ipv6,
    server_public_key: serverPublicKey,
    // The code's own endpoint is the one that has just been seen to work.
    endpoint: renderEndpoint(endpoint),
    created: clock.now().toISOString(),
    ...(joined.function === undefined ? {} : { function: joined.function }),
  }
}

async function bringUp(
  membership: Membership,
  implementation: 'kernel' | 'wireguard-go',
  deps: DeviceDeps,
  options: ConnectOptions,
): Promise<Connection> {
  const { say } = deps
  const { signal } = options
  const endpoint = parseEndpoint(membership.endpoint)
  const { private_key: privateKey, server_public_key: serverPublicKey, address } = membership
  const reached = await reach({ privateKey, serverPublicKey, address }, endpoint, deps, signal)
  if (!reached) throw strangerOrUnreachable(membership)
  const way = await setUpResolution(membership.name, deps, options)
  const carrier = implementation === 'kernel' ? 'kernel WireGuard' : 'wireguard-go'
  const dns = way === 'nothing' ? 'names not set up' : `names by ${way}`
  say(
    `- Configures ${deviceLink} interface: ${carrier}, ${address}, route ${platformPrefix}, MTU ${reached.mtu}, ${dns}`,
  )
  say('- Tests connectivity:')
  await testTunnel(membership.function, { ...deps, signal })
  if (way === 'nothing') for (const line of dnsInstruction) say(line)
  return { membership, implementation, mtu: reached.mtu, dns: way }
}

/** Tries the endpoint's addresses in turn until the server shakes hands; undefined when none does. */
async function reach(
  keys: { privateKey: PrivateKey; serverPublicKey: PublicKey; address: Ipv6 },
  { host, port }: Endpoint,
  { link, clock }: DeviceDeps,
  signal: AbortSignal,
): Promise<{ mtu: number } | undefined> {
  for (const numeric of await resolveHost(host)) {
    signal.throwIfAborted()
    const configured = await link.configure({ ...keys, endpoint: { host: numeric, port } }, signal)
    if (await waitForHandshake(link.dump, { clock, signal })) return configured
  }
  return undefined
}

async function resolveHost(host: string): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [host]
  try {
    const found = await lookup(host, { all: true, hints: ADDRCONFIG })
    return found.map(({ address }) => address)
  } catch (cause) {
    throw new FaasError('VPN_UNREACHABLE', `the server's name ${host} does not resolve`, {
      hint: "look at this device's network, and at FAAS_VPN_ENDPOINT on the server",
      cause,
    })
  }
}

/** Notes each way before it is tried, so that it can be undone after a crash; answers the one that worked. */
async function setUpResolution(
  name: PeerName,
  { files, resolution, clock, say }: DeviceDeps,
  { writeResolvConf }: ConnectOptions,
): Promise<string> {
  for (const way of await resolution.ways({ writeResolvConf })) {
    await files.writeConnected({ version: 1, name, since: clock.now().toISOString(), dns: way })
    try {
      await resolution.apply(way)
      return way.by
    } catch (error) {
      say(`⚠ ${toFaasError(error).message}`)
      await resolution.undo(way)
    }
  }
  return 'nothing'
}

const udpHint = (endpoint: string): string =>
  `is UDP ${endpoint} reachable from here (firewall, port forwarding, FAAS_VPN_ENDPOINT on the server), and does faasd run there?`

async function unanswered(code: InvitationCode, { clock, files }: DeviceDeps): Promise<FaasError> {
  if (code.expires.getTime() <= clock.now().getTime()) {
    return new FaasError('INVITATION_INVALID', `this code expired at ${code.expires.toISOString()}`, {
      hint: `ask for a new one: faas vpn invite ${code.name}`,
    })
  }
  const known = await files.read(code.name).catch(() => undefined)
  const member = known ? `; this device is a member already: faas vpn connect ${code.name}` : ''
  const endpoint = renderEndpoint(code.endpoint)
  return new FaasError(
    'VPN_UNREACHABLE',
    `no answer from ${endpoint} by UDP: the server cannot be reached, or the code was used or withdrawn`,
    { hint: `${udpHint(endpoint)} A code works once: for another device ask for a new one${member}` },
  )
}

const strangerOrUnreachable = ({ name, endpoint }: Membership): FaasError =>
  new FaasError(
    'VPN_UNREACHABLE',
    `no answer from ${endpoint} by UDP: the server cannot be reached, or does not know this device any more`,
    {
      hint: `${udpHint(endpoint)} If the server was installed anew or ${name} was removed there, join again: faas vpn connect CODE`,
    },
  )
