/**
 * The user ids of containers. Every container has a user namespace in which 0..65535 are the host's
 * {@link ID_BASE}..{@link ID_BASE}+65535, and layers are unpacked under the same mapping. Root inside is nobody
 * outside: it owns its files, and a file that is setuid root inside is not setuid root for the host.
 * It is the last range of those that systemd sets aside for containers ("Users, Groups, UIDs and GIDs on systemd
 * Systems"): /etc/subuid is filled from the other end, so no user of the host owns any of it.
 */
export const ID_BASE = 0x6fff0000
export const ID_COUNT = 65536

/** One entry of `linux.uidMappings` and `linux.gidMappings` (OCI runtime spec 1.0.2, "User namespace mappings"). */
export interface IdMapping {
  readonly containerID: number
  readonly hostID: number
  readonly size: number
}

export const idMappings: readonly IdMapping[] = [{ containerID: 0, hostID: ID_BASE, size: ID_COUNT }]

/** The host's id of an id inside a container. Throws RangeError past the mapping. */
export function hostId(id: number): number {
  if (!Number.isInteger(id) || id < 0 || id >= ID_COUNT)
    throw new RangeError(`id ${id} is outside of 0..65535`)
  return ID_BASE + id
}
