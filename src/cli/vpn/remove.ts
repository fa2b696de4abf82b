/** `faas vpn remove NAME`: removes a device from the server, or an open invitation; with `--local`, what this device keeps. */
import { Command } from 'commander'
import { FaasError } from '../../values/errors.ts'
import { type PeerName, parsePeerName } from '../../values/names.ts'
import { type CliContext, printResult } from '../context.ts'
import { deviceOf, type VpnDeps } from './deps.ts'

export function removeCommand(context: CliContext, deps: VpnDeps): Command {
  const command = new Command('remove')
    .alias('rm')
    .description('remove a device, or withdraw its invitation')
    .argument('<name>', 'name of the device')
    .option('--local', 'forget the key that this device keeps for that name')
  return command.action(async (text: string, { local }: { local?: boolean }) => {
    const name = parsePeerName(text)
    if (local) await forget(name, context, deps, command)
    else await context.createClient().call('vpnRemove', { name })
    printResult(context, command, { name }, () => name)
  })
}

async function forget(name: PeerName, context: CliContext, deps: VpnDeps, command: Command): Promise<void> {
  const { files } = deviceOf(context, deps, command)
  if ((await files.readConnected())?.name === name) {
    throw new FaasError('VPN_CONNECTED', `this device is connected as ${name}`, {
      hint: 'disconnect first: faas vpn disconnect',
    })
  }
  if (!(await files.names()).includes(name)) {
    throw new FaasError('PEER_UNKNOWN', `this device is no member as ${name}`, {
      hint: 'see what it is: faas vpn list --local',
    })
  }
  await files.remove(name)
}
