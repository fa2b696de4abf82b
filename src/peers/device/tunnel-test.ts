/**
 * Whether the tunnel works: a handshake, an answer of the server, its DNS, this machine's own name resolution, and a function.
 * The first three are needed for a connection; the rest is told to the user. Handshakes are tried by WireGuard every
 * five seconds, so each wait is longer than two of them. Failure: VPN_UNREACHABLE.
 */
import { Resolver, lookup as systemLookup } from 'node:dns/promises'
import { get } from 'node:http'
import { connect } from 'node:net'
import type { Clock } from '../../host/clock.ts'
import { eventually } from '../../host/eventually.ts'
import type { Exec } from '../../host/exec.ts'
import { dnsPort, functionPort, serverAddress } from '../../net/addresses.ts'
import type { WireguardDump } from '../../net/wireguard-dump.ts'
import { FaasError } from '../../values/errors.ts'
import { parseIpv6 } from '../../values/ipv6.ts'

const serverName = 'ns.faas'
const waitMs = 12_000
const attemptMs = 2_500

export interface TunnelTestDeps {
  readonly exec: Exec
  readonly clock: Clock
  readonly say: (line: string) => void
  readonly signal: AbortSignal
}

/** Waits for the server's first handshake; answers whether it came. */
export async function waitForHandshake(
  dump: () => Promise<WireguardDump>,
  { clock, signal }: Pick<TunnelTestDeps, 'clock' | 'signal'>,
): Promise<boolean> {
  const deadline = clock.monotonicMs() + waitMs
  while (clock.monotonicMs() < deadline) {
    const { peers } = await dump()
    if (peers.some((peer) => peer.latestHandshakeSeconds !== undefined)) return true
    await clock.sleep(100, signal)
    signal.throwIfAborted()
  }
  return false
}

/** Tests a tunnel that has shaken hands, and says each step. `functionName` is tried where it still exists. */
export async function testTunnel(functionName: string | undefined, deps: TunnelTestDeps): Promise<void> {
  const { say, signal } = deps
  say(`    ${await needed(() => pingServer(deps), 'the server does not answer through the tunnel', signal)}`)
  say(`    ${await needed(queryServer, "the server's DNS does not answer", signal)}`)
  say(`    ${await resolveHere()}`)
  if (functionName !== undefined) say(`    ${await callFunction(functionName)}`)
  signal.throwIfAborted()
}

async function needed(attempt: () => Promise<string>, what: string, signal: AbortSignal): Promise<string> {
  try {
    return await eventually(what, () => (signal.aborted ? '' : attempt()), {
      timeoutMs: waitMs,
      intervalMs: 250,
    })
  } catch (cause) {
    throw new FaasError('VPN_UNREACHABLE', cause instanceof Error ? cause.message : what, {
      hint: 'look at the server: faas status',
      cause,
    })
  } finally {
    signal.throwIfAborted()
  }
}

async function pingServer({ exec, clock, signal }: TunnelTestDeps): Promise<string> {
  const start = clock.monotonicMs()
  const took = () => `${Math.max(1, Math.round(clock.monotonicMs() - start))} ms`
  try {
    const { stdout } = await exec('ping', ['-6', '-n', '-c', '1', '-W', '2', serverAddress], { signal })
    return `ping ${serverAddress}: ${/time=([\d.]+ ms)/.exec(stdout)?.[1] ?? took()}`
  } catch (error) {
    if (!(error instanceof FaasError) || error.code !== 'PROGRAM_MISSING') throw error
    await connectTcp(serverAddress, dnsPort)
    return `ping ${serverAddress}: ${took()} (by TCP port ${dnsPort}: the program ping is not installed)`
  }
}

const connectTcp = (host: string, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host, port, timeout: attemptMs })
    socket.once('connect', () => resolve(void socket.destroy()))
    socket.once('timeout', () => socket.destroy(new Error(`no answer from [${host}]:${port}`)))
    socket.once('error', reject)
  })

/** Asks the server itself, past this machine's own resolver. */
async function askServer(name: string): Promise<readonly string[]> {
  const resolver = new Resolver({ timeout: attemptMs, tries: 1 })
  resolver.setServers([`[${serverAddress}]:${dnsPort}`])
  return (await resolver.resolve6(name)).map(parseIpv6)
}

async function queryServer(): Promise<string> {
  const addresses = await askServer(serverName)
  if (!addresses.includes(serverAddress)) throw new Error(`${serverName} is ${addresses.join(', ')}`)
  return `DNS ${serverName} AAAA: ${serverAddress}`
}

async function resolveHere(): Promise<string> {
  const answer = systemLookup(serverName, { family: 6 }).then(
    ({ address }) => address === serverAddress,
    () => false,
  )
  const late = new Promise<boolean>((resolve) => setTimeout(resolve, attemptMs, false).unref())
  const works = await Promise.race([answer, late])
  return works
    ? `names under faas. resolve on this machine`
    : `⚠ names under faas. do not resolve on this machine yet`
}

async function callFunction(name: string): Promise<string> {
  const url = `http://${name}.faas/`
  const addresses = await askServer(`${name}.faas`).catch(() => [])
  const host = addresses[0]
  if (host === undefined) return `HTTP: not tried, ${name} is no longer there`
  const start = performance.now()
  return new Promise((resolve) => {
    const call = get({
      host,
      port: functionPort,
      path: '/',
      headers: { host: `${name}.faas` },
      timeout: 4 * attemptMs,
    })
    call.once('response', (response) => {
      response.destroy()
      resolve(`HTTP ${url}: ${response.statusCode} in ${Math.round(performance.now() - start)} ms`)
    })
    call.once('timeout', () => call.destroy(new Error('no answer in time')))
    call.once('error', (error) => resolve(`⚠ HTTP ${url}: ${error.message}`))
  })
}
