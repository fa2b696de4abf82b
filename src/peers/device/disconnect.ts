/**
 * Undoes a connection, whole or half-made: name resolution, then the link with its address, routes and wireguard-go, then the
 * note of it. Memberships are kept. Every step is idempotent, so it also mends what a crash left.
 */
import type { DeviceDeps } from './device.ts'

export interface Disconnected {
  /** Whether there was anything to undo. */
  readonly wasConnected: boolean
}

export async function disconnect({
  files,
  link,
  resolution,
  say,
}: Pick<DeviceDeps, 'files' | 'link' | 'resolution' | 'say'>): Promise<Disconnected> {
  const connected = await files.readConnected()
  const hadLink = await link.exists()
  const remark = connected && (await resolution.undo(connected.dns))
  await link.delete()
  await files.writeConnected(undefined)
  if (remark !== undefined) say(`⚠ ${remark}`)
  return { wasConnected: hadLink || connected !== undefined }
}
