/**
 * `faas vpn connect [CODE|NAME]`: joins with a code, connects again as a member, or registers by the API of the server that
 * FAAS_HOST names (or that runs here). Prints each step; `✅ Connected!` is the last line.
 */
import type { Readable } from 'node:stream'
import { Command } from 'commander'
import { decodeCode, looksLikeCode } from '../../peers/code.ts'
import {
  type Connection,
  type ConnectOptions,
  connectByRegistering,
  connectWithCode,
  type Register,
  reconnect,
} from '../../peers/device/connect.ts'
import type { DeviceDeps } from '../../peers/device/device.ts'
import { FaasError } from '../../values/errors.ts'
import { type PeerName, parsePeerName } from '../../values/names.ts'
import { type CliContext, isJson, printResult } from '../context.ts'
import { deviceOf, requireRoot, type VpnDeps } from './deps.ts'

export function connectCommand(context: CliContext, deps: VpnDeps): Command {
  const command = new Command('connect')
    .description('connect this device to the network')
    .argument('[code-or-name]', 'a code of `faas vpn invite`, `-` to read one from stdin, or a name')
    .option(
      '--write-resolv-conf',
      'where nothing else sets up DNS, write /etc/resolv.conf until disconnected',
    )
  return command.action(async (what: string | undefined, flags: { writeResolvConf?: boolean }) => {
    requireRoot(deps)
    const device = deviceOf(context, deps, command)
    const options = { writeResolvConf: flags.writeResolvConf === true, signal: context.signal }
    const { membership, implementation, mtu, dns } = await connect(what, { context, deps, device, options })
    const { name, address, endpoint } = membership
    device.say('✅ Connected!')
    if (!isJson(command)) return
    const result = {
      name,
      ipv6: address,
      endpoint,
      interface: 'wg-faas',
      wireguard: implementation,
      mtu,
      dns,
    }
    printResult(context, command, result, () => '')
  })
}

async function connect(
  what: string | undefined,
  o: { context: CliContext; deps: VpnDeps; device: DeviceDeps; options: ConnectOptions },
): Promise<Connection> {
  const { context, deps, device, options } = o
  if (what === '-') return connectWithCode(decodeCode(await readCode(context.stdin)), device, options)
  if (what !== undefined && looksLikeCode(what)) return connectWithCode(decodeCode(what), device, options)
  const name = what === undefined ? await nameToReconnect(device) : parsePeerName(what)
  const membership = name && (await device.files.read(name))
  if (membership) return reconnect(membership, device, options)
  return connectByRegistering(name ?? nameOfMachine(deps.hostname), registerWith(context), device, options)
}

/** The member that is, or was last, connected; else the only one there is. */
async function nameToReconnect({ files }: DeviceDeps): Promise<PeerName | undefined> {
  const names = await files.names()
  const last = (await files.readConnected())?.name
  if (last !== undefined && names.includes(last)) return last
  if (names.length < 2) return names[0]
  throw new FaasError('OPTION_INVALID', `this device is a member as ${names.join(', ')}`, {
    hint: 'say which: faas vpn connect NAME',
  })
}

const registerWith =
  (context: CliContext): Register =>
  async (name, publicKey) => {
    const client = context.createClient()
    try {
      const registered = await client.call('vpnCreate', { body: { name, public_key: publicKey } })
      const [first] = Object.keys(await client.call('list', {}).catch(() => ({})))
      return { ...registered, ...(first === undefined ? {} : { function: first }) }
    } catch (error) {
      if (!(error instanceof FaasError) || error.code !== 'DAEMON_UNREACHABLE') throw error
      throw new FaasError(error.code, `without a code the server's API is needed: ${error.message}`, {
        hint:
          'on the server run `faas vpn invite NAME`, then here `faas vpn connect CODE`; ' +
          'or, with ssh to the server, FAAS_HOST=ssh://user@server faas vpn connect',
        cause: error,
      })
    }
  }

/** A DNS label out of the machine's name. */
export function nameOfMachine(hostname: string): PeerName {
  const [first = ''] = hostname.toLowerCase().split('.')
  const label = first.replace(/[^a-z0-9-]/g, '-').slice(0, 63)
  return parsePeerName(label.replace(/^-+|-+$/g, '') || 'device')
}

const maxCodeBytes = 4096

async function readCode(stdin: Readable): Promise<string> {
  let text = ''
  for await (const chunk of stdin) {
    text += String(chunk)
    if (text.length > maxCodeBytes) break
  }
  return text
}
