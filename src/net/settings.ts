/**
 * Kernel settings of the server's network that the rule for passed sockets leans on. Forwarding is not among them: `wg0.conf` turns
 * it on, as the guide has it.
 */
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { FaasError } from '../values/errors.ts'
import { functionPort } from './addresses.ts'

/**
 * Lets connections that wait at a listener move to the next version's. Turns TCP Fast Open off (a SYN with data would open a flow without `connect`; the firewall refuses it as well), and makes sure that
 * the functions' port is one that only root may bind. Throws FIREWALL_NOT_IN_PLACE where it is not: a function could then take a
 * listener's place with the socket it was passed. Idempotent. `procSys` is `/proc/sys`, of the network namespace that serves.
 */
export async function applyNetworkSettings({
  procSys = '/proc/sys',
}: {
  readonly procSys?: string
} = {}): Promise<void> {
  const tcpFastOpen = join(procSys, 'net/ipv4/tcp_fastopen')
  if ((await readFile(tcpFastOpen, 'utf8')).trim() !== '0') await writeFile(tcpFastOpen, '0\n')

  // Since Linux 5.14. Without it a redeploy resets the connections that wait in the queue at that moment.
  const migrateRequests = join(procSys, 'net/ipv4/tcp_migrate_req')
  if (existsSync(migrateRequests)) await writeFile(migrateRequests, '1\n')

  const firstOpenPort = Number(await readFile(join(procSys, 'net/ipv4/ip_unprivileged_port_start'), 'utf8'))
  if (firstOpenPort <= functionPort) {
    throw new FaasError(
      'FIREWALL_NOT_IN_PLACE',
      `net.ipv4.ip_unprivileged_port_start is ${firstOpenPort}: any process may listen on port ${functionPort}`,
      { hint: 'run `sysctl -w net.ipv4.ip_unprivileged_port_start=1024` and keep it in /etc/sysctl.d' },
    )
  }
}
