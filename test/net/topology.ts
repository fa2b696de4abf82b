/**
 * A server's network in this namespace, with neighbours in namespaces of their own: `device` behind `wg0` and `lan` behind `eth0`.
 * Here `wg0` is one end of a veth pair: for packet filters a link is a name, and so every source address can be tried that
 * WireGuard's keys would never let through.
 */
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { createServer, type Server } from 'node:net'
import { exec } from '../../src/host/exec.ts'

export const functionA = 'fd00:faa5:1::a'
export const functionB = 'fd00:faa5:1::b'
export const server = 'fd00:faa5:0:100::1'
export const peerA = 'fd00:faa5:0:100::a'
export const peerB = 'fd00:faa5:0:100::b'
export const invited = 'fd00:faa5:0:200::a'
export const serverOnLan = 'fd00:1234::1'
export const lanHost = 'fd00:1234::2'

const wgMac = '02:00:00:00:00:01'
const deviceMac = '02:00:00:00:00:02'

/** Lines for `ip -batch`, in this namespace or in that of a neighbour. */
const ip = (lines: readonly string[], netns?: string) =>
  exec('ip', [...(netns === undefined ? [] : ['-n', netns]), '-batch', '-'], { input: lines.join('\n') })

export async function buildTopology(): Promise<void> {
  const functions = [functionA, functionB, 'fd00:faa5:1::c']
  const deviceAddresses = [peerA, peerB, invited, 'fd00:faa5:0:300::a']
  await ip(['netns add device', 'netns add lan'])
  // No pause for duplicate addresses, and a server that forwards, as the guide's does.
  await exec('sysctl', ['-q', '-w', 'net.ipv6.conf.all.forwarding=1', 'net.ipv6.conf.default.accept_dad=0'])
  for (const netns of ['device', 'lan']) {
    await exec('ip', ['netns', 'exec', netns, 'sysctl', '-q', '-w', 'net.ipv6.conf.default.accept_dad=0'])
  }
  await ip([
    `link add wg0 address ${wgMac} type veth peer name d0 address ${deviceMac} netns device`,
    'link add eth0 type veth peer name l0 netns lan',
    'link set wg0 up',
    'link set eth0 up',
    `address add ${server}/64 dev wg0 nodad`,
    ...functions.map((address) => `address add ${address}/128 dev wg0 nodad`),
    `address add ${serverOnLan}/64 dev eth0 nodad`,
    'address add 192.0.2.1/24 dev eth0',
    'route add fd00:faa5:0:200::/63 dev wg0',
    `route add default via ${lanHost} dev eth0`,
    // A veth asks for its neighbour's hardware address, which WireGuard does not, and which the rules do not let in.
    ...deviceAddresses.map((address) => `neigh add ${address} lladdr ${deviceMac} dev wg0 nud permanent`),
  ])
  await ip(
    [
      'link set lo up',
      'link set d0 up',
      ...deviceAddresses.map((address) => `address add ${address}/128 dev d0 nodad`),
      'route add fd00::/8 dev d0',
      ...[server, serverOnLan, lanHost, peerB, ...functions, 'fd00:faa5:1::99'].map(
        (address) => `neigh add ${address} lladdr ${wgMac} dev d0 nud permanent`,
      ),
    ],
    'device',
  )
  await ip(
    [
      'link set lo up',
      'link set l0 up',
      `address add ${lanHost}/64 dev l0 nodad`,
      'address add 192.0.2.2/24 dev l0',
      `route add fd00:faa5::/32 via ${serverOnLan}`,
    ],
    'lan',
  )
}

/** What becomes of each target (see reach.ts) from a namespace, or from here for `undefined`. */
export async function reach(
  netns: string | undefined,
  targets: readonly string[],
  options: { readonly uid?: number } = {},
): Promise<readonly string[]> {
  const program = [process.execPath, new URL('reach.ts', import.meta.url).pathname]
  const [command = '', ...args] = netns === undefined ? program : ['ip', 'netns', 'exec', netns, ...program]
  const user = options.uid === undefined ? [] : [`--uid=${options.uid}`]
  return JSON.parse((await exec(command, [...args, ...user, ...targets])).stdout) as string[]
}

/** A TCP server in this process that takes connections and says nothing. */
export function serveTcp(address: string, port: number): Promise<AsyncDisposable> {
  const { promise, resolve, reject } = Promise.withResolvers<AsyncDisposable>()
  const listening: Server = createServer((socket) => socket.on('error', () => {}).resume())
  listening.on('error', reject)
  listening.listen({ host: address, port, ipv6Only: address !== '::' }, () =>
    resolve({ [Symbol.asyncDispose]: async () => void listening.close() }),
  )
  return promise
}

/** A UDP server in this process that answers every packet. */
export function serveUdp(address: string, port: number): Promise<AsyncDisposable> {
  const { promise, resolve, reject } = Promise.withResolvers<AsyncDisposable>()
  const socket = createSocket('udp6', (_message, from) => socket.send('answer', from.port, from.address))
  socket.on('error', reject)
  socket.bind({ address, port }, () => resolve({ [Symbol.asyncDispose]: async () => void socket.close() }))
  return promise
}

/** A TCP server in a neighbour's namespace. */
export async function serveTcpIn(netns: string, address: string, port: number): Promise<AsyncDisposable> {
  const program = `require('node:net').createServer((s) => s.resume()).listen(${port}, '${address}', () => console.log('ready'))`
  const child = spawn('ip', ['netns', 'exec', netns, process.execPath, '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve)
    child.once('exit', reject)
  })
  return { [Symbol.asyncDispose]: async () => void child.kill('SIGKILL') }
}
