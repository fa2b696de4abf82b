/** What `faas vpn status` tells: who this device is, whether the link stands, and what went through it. */
import type { Clock } from '../../host/clock.ts'
import type { DeviceFiles } from './config.ts'
import type { DeviceLink } from './link.ts'

/** Keys as they are in `--json`. */
export interface DeviceStatus {
  /** The link is up and the server has shaken hands within three minutes. */
  readonly connected: boolean
  readonly message: string
  readonly name?: string
  readonly ipv6?: string
  readonly endpoint?: string
  readonly since?: string
  /** `resolvectl`, `resolvconf`, `resolv.conf` or `nothing`. */
  readonly dns?: string
  readonly handshake_age_seconds?: number
  readonly received_bytes?: number
  readonly sent_bytes?: number
}

/** WireGuard drops a session that is older (REJECT_AFTER_TIME); with keepalives a new one comes well before. */
const freshSeconds = 180

export async function deviceStatus({
  files,
  link,
  clock,
}: {
  files: DeviceFiles
  link: DeviceLink
  clock: Clock
}): Promise<DeviceStatus> {
  const noted = await files.readConnected()
  if (!(await link.exists())) {
    const message = noted
      ? `the connection as ${noted.name} is gone (a restart, or wireguard-go was ended): faas vpn connect`
      : 'not connected'
    return { connected: false, message }
  }
  const { peers } = await link.dump()
  const [server] = peers
  const handshake = server?.latestHandshakeSeconds
  const age =
    handshake === undefined ? undefined : Math.max(0, Math.floor(clock.now().getTime() / 1000) - handshake)
  const membership = noted && (await files.read(noted.name))
  const isFresh = age !== undefined && age < freshSeconds
  return {
    connected: isFresh,
    message: isFresh ? 'connected' : 'the link is up, but the server does not answer',
    ...(membership && { name: membership.name, ipv6: membership.address }),
    ...(server?.endpoint !== undefined && { endpoint: server.endpoint }),
    ...(noted && { since: noted.since, dns: noted.dns.by }),
    ...(age !== undefined && { handshake_age_seconds: age }),
    ...(server && { received_bytes: server.receivedBytes, sent_bytes: server.sentBytes }),
  }
}
