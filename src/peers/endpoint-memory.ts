/**
 * Where peers were last heard from, so that the server can speak first after WireGuard was made anew: a device notices a server
 * that has forgotten it only after some fifteen seconds of silence. Kept in `endpoints.json` (0600), which may be lost or
 * damaged without harm: then devices come by themselves.
 */
import { z } from 'zod'
import { readTextIfExists, writeFileAtomic } from '../host/files.ts'
import type { WireguardDump } from '../net/wireguard-dump.ts'

export interface EndpointMemory {
  /** `ADDRESS:PORT`, by public key. */
  get(publicKey: string): string | undefined
  /** Remembers what a dump tells of those in `wanted`, and forgets everybody else. Written only when something has changed. */
  learn(dump: WireguardDump, wanted: ReadonlySet<string>): Promise<void>
}

const text = z.string().max(100)
/** What `wg` prints; anything else never reaches its command line. */
const numericEndpoint = text.regex(/^(\d[\d.]{6,14}|\[[\da-f:.]+\]):\d{1,5}$/)
const document = z.record(text, numericEndpoint)

/** With a path, what is there is read and kept up to date; without one it lasts as long as the process. */
export async function loadEndpointMemory(path?: string): Promise<EndpointMemory> {
  let known = new Map(Object.entries(path === undefined ? {} : await read(path)))
  return {
    get: (publicKey) => known.get(publicKey),
    async learn({ peers }, wanted) {
      const next = new Map([...known].filter(([key]) => wanted.has(key)))
      for (const { publicKey, endpoint, latestHandshakeSeconds } of peers) {
        if (endpoint === undefined || latestHandshakeSeconds === undefined || !wanted.has(publicKey)) continue
        if (numericEndpoint.safeParse(endpoint).success) next.set(publicKey, endpoint)
      }
      const content = render(next)
      const isChanged = content !== render(known)
      known = next
      if (isChanged && path !== undefined) await writeFileAtomic(path, content, { mode: 0o600 })
    },
  }
}

const render = (known: ReadonlyMap<string, string>): string =>
  `${JSON.stringify(Object.fromEntries([...known].toSorted(([a], [b]) => (a < b ? -1 : 1))), undefined, 2)}\n`

async function read(path: string): Promise<Record<string, string>> {
  try {
    const content = await readTextIfExists(path)
    return content === undefined ? {} : document.parse(JSON.parse(content))
  } catch {
    return {}
  }
}
