/** `faas vpn list`: the server's devices; with `--local`, what this device is a member as. */
import { Command } from 'commander'
import { type CliContext, printResult } from '../context.ts'
import { renderTable } from '../text.ts'
import { deviceOf, type VpnDeps } from './deps.ts'

export function listCommand(context: CliContext, deps: VpnDeps): Command {
  const command = new Command('list')
    .alias('ls')
    .description('list the devices of the network')
    .option('--local', 'list what this device is a member as')
  return command.action(async ({ local }: { local?: boolean }) => {
    if (local) return listLocal(context, deps, command)
    const peers = await context.createClient().call('vpnList', {})
    printResult(context, command, peers, () => {
      if (peers.length === 0) return 'no devices yet: invite one with faas vpn invite NAME'
      return renderTable(
        ['NAME', 'ADDRESS', 'STATUS', 'CREATED'],
        peers.map(({ name, ipv6, status, created }) => [name, ipv6, status, created]),
      )
    })
  })
}

async function listLocal(context: CliContext, deps: VpnDeps, command: Command): Promise<void> {
  const { files } = deviceOf(context, deps, command)
  const read = await Promise.all((await files.names()).map((name) => files.read(name)))
  const members = read.flatMap((member) =>
    member
      ? [{ name: member.name, ipv6: member.address, endpoint: member.endpoint, created: member.created }]
      : [],
  )
  printResult(context, command, members, () => {
    if (members.length === 0) return 'this device is no member yet: faas vpn connect CODE'
    return renderTable(
      ['NAME', 'ADDRESS', 'SERVER', 'CREATED'],
      members.map(({ name, ipv6, endpoint, created }) => [name, ipv6, endpoint, created]),
    )
  })
}
