/**
 * Open invitations: each lets one device, with a one-time key, reach the join service from one quarantine address
 * until it expires. They live in `invitations.json` (0600), without the private half of the key: that exists only
 * in the code that was printed. A change that has resolved survives a power cut.
 * A damaged file is kept aside as `invitations.json.damaged`, reported, and costs no more than asking again.
 */
import { rename } from 'node:fs/promises'
import { z } from 'zod'
import { readTextIfExists, writeFileAtomic } from '../host/files.ts'
import { firstFreeAddress, quarantinePool } from '../net/addresses.ts'
import { type Ipv6, parseIpv6 } from '../values/ipv6.ts'
import { type PeerName, parsePeerName } from '../values/names.ts'
import { generateKeyPair, type PrivateKey, type PublicKey, parsePublicKey } from './keys.ts'

export interface Invitation {
  readonly name: PeerName
  /** The public half of the one-time key. */
  readonly publicKey: PublicKey
  readonly address: Ipv6
  /** `host:port`, as the code has it. */
  readonly endpoint: string
  /** ISO 8601, UTC. */
  readonly expires: string
  /** The device's own key, once it has joined. */
  readonly redeemedBy?: PublicKey | undefined
}

export interface Invitations {
  /** All that are kept, also those that have expired and were not yet dropped. */
  list(): readonly Invitation[]
  /** Opens one; an open one of the same name is closed. Throws ADDRESS_POOL_EMPTY. */
  open(o: { name: PeerName; endpoint: string; expires: Date }): Promise<OpenedInvitation>
  /** Notes who joined with the invitation of `address`. */
  redeem(address: Ipv6, redeemedBy: PublicKey): Promise<void>
  /** Closes those for which `over` is true, and answers them. */
  close(over: (invitation: Invitation) => boolean): Promise<readonly Invitation[]>
}

export interface OpenedInvitation {
  readonly invitation: Invitation
  readonly oneTimePrivateKey: PrivateKey
}

const text = z.string().max(300)
const document = z.strictObject({
  version: z.literal(1),
  invitations: z.array(
    z.strictObject({
      name: text.transform(parsePeerName),
      publicKey: text.transform(parsePublicKey),
      address: text.transform(parseIpv6),
      endpoint: text,
      expires: z.iso.datetime(),
      redeemedBy: text.transform(parsePublicKey).optional(),
    }),
  ),
})

/** Callers run one change after another (network.ts does). */
export async function loadInvitations(o: {
  path: string
  report: (message: string) => void
}): Promise<Invitations> {
  const { path } = o
  let open: readonly Invitation[] = await read(o)

  async function commit(next: readonly Invitation[]): Promise<void> {
    const content = { version: 1, invitations: next }
    await writeFileAtomic(path, `${JSON.stringify(content, undefined, 2)}\n`, { mode: 0o600 })
    open = next
  }

  return {
    list: () => open,
    async open({ name, endpoint, expires }) {
      const others = open.filter((invitation) => invitation.name !== name)
      const taken = new Set(open.map((invitation) => invitation.address))
      const address = firstFreeAddress(quarantinePool, taken)
      const { privateKey, publicKey } = generateKeyPair()
      const invitation: Invitation = { name, publicKey, address, endpoint, expires: expires.toISOString() }
      await commit([...others, invitation])
      return { invitation, oneTimePrivateKey: privateKey }
    },
    redeem: (address, redeemedBy) =>
      commit(
        open.map((invitation) =>
          invitation.address === address ? { ...invitation, redeemedBy } : invitation,
        ),
      ),
    async close(over) {
      const closed = open.filter(over)
      if (closed.length > 0) await commit(open.filter((invitation) => !closed.includes(invitation)))
      return closed
    },
  }
}

async function read(o: { path: string; report: (message: string) => void }): Promise<readonly Invitation[]> {
  const content = await readTextIfExists(o.path)
  if (content === undefined) return []
  try {
    return document.parse(JSON.parse(content)).invitations
  } catch (error) {
    const aside = `${o.path}.damaged`
    await rename(o.path, aside)
    const why = error instanceof z.ZodError ? z.prettifyError(error) : String(error)
    o.report(`${o.path} is damaged and kept as ${aside}; invitations that were open are void: ${why}`)
    return []
  }
}
