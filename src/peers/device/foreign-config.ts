/** The configuration for a device that runs WireGuard's own app: everything but its private key, which only it has. */
import { platformPrefix, serverAddress } from '../../net/addresses.ts'
import type { Registration } from '../network.ts'

/** wg-quick(8) syntax, which the apps import. */
export const renderForeignConfig = ({
  ipv6,
  server_public_key,
  endpoint,
}: { [K in keyof Registration]: string }): string =>
  `[Interface]
# PrivateKey = (the device's own; it never leaves the device)
Address = ${ipv6}/128
DNS = ${serverAddress}

[Peer]
PublicKey = ${server_public_key}
AllowedIPs = ${platformPrefix}
Endpoint = ${endpoint}
PersistentKeepalive = 25
`
