/** `faas vpn …`: the private network's members. `connect`, `disconnect` and `status` act on this device, the rest on the server. */
import { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { addCommand } from './add.ts'
import { connectCommand } from './connect.ts'
import type { VpnDeps } from './deps.ts'
import { disconnectCommand } from './disconnect.ts'
import { inviteCommand } from './invite.ts'
import { listCommand } from './list.ts'
import { removeCommand } from './remove.ts'
import { statusCommand } from './status.ts'

export function vpnCommand(context: CliContext, deps: VpnDeps): Command {
  const vpn = new Command('vpn').description('join devices to the private network')
  vpn.addCommand(inviteCommand(context))
  vpn.addCommand(connectCommand(context, deps))
  vpn.addCommand(disconnectCommand(context, deps))
  vpn.addCommand(statusCommand(context, deps))
  vpn.addCommand(listCommand(context, deps))
  vpn.addCommand(removeCommand(context, deps))
  vpn.addCommand(addCommand(context))
  return vpn
}
