/** `faas vpn status`: this device's connection. Ends with 1 when there is none. */
import { Command } from 'commander'
import { type DeviceStatus, deviceStatus } from '../../peers/device/status.ts'
import { FaasError } from '../../values/errors.ts'
import { type CliContext, isJson, printResult } from '../context.ts'
import { renderBytes, renderPairs } from '../text.ts'
import { deviceOf, requireRoot, type VpnDeps } from './deps.ts'

export function statusCommand(context: CliContext, deps: VpnDeps): Command {
  const command = new Command('status').description("show this device's connection")
  return command.action(async () => {
    requireRoot(deps)
    const status = await deviceStatus(deviceOf(context, deps, command))
    if (isJson(command) || status.name !== undefined) {
      printResult(context, command, status, () => renderStatus(status))
    }
    if (status.connected) return
    throw new FaasError('VPN_NOT_CONNECTED', status.message, { hint: 'connect: faas vpn connect' })
  })
}

function renderStatus(status: DeviceStatus): string {
  const { name, ipv6, endpoint, since, dns, handshake_age_seconds: age } = status
  return renderPairs([
    ['state', status.message],
    ['name', name ?? ''],
    ['address', ipv6 ?? ''],
    ['endpoint', endpoint ?? ''],
    ['since', since ?? ''],
    ['names by', dns ?? ''],
    ['handshake', age === undefined ? 'never' : `${age} s ago`],
    ['received', renderBytes(status.received_bytes ?? 0)],
    ['sent', renderBytes(status.sent_bytes ?? 0)],
  ])
}
