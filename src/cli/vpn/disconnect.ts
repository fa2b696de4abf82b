/** `faas vpn disconnect`: undoes what connect did to this machine. The membership is kept. */
import { Command } from 'commander'
import { disconnect } from '../../peers/device/disconnect.ts'
import { type CliContext, printNote, printResult } from '../context.ts'
import { deviceOf, requireRoot, type VpnDeps } from './deps.ts'

export function disconnectCommand(context: CliContext, deps: VpnDeps): Command {
  const command = new Command('disconnect').description('disconnect this device; its name and key are kept')
  return command.action(async () => {
    requireRoot(deps)
    const device = deviceOf(context, deps, command)
    const { wasConnected } = await disconnect({ ...device, say: (line) => printNote(context, line) })
    const text = wasConnected ? 'Disconnected.' : 'was not connected'
    printResult(context, command, { was_connected: wasConnected }, () => text)
  })
}
