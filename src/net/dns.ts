/**
 * The zone `faas.` and CoreDNS's configuration. The zone file is derived: whatever it held, it is made what the records say.
 * CoreDNS reads a zone again only when its serial has changed, so the serial rises with every change; it is a counter, never a date,
 * because clocks jump.
 */
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { readTextIfExists, writeFileAtomic } from '../host/files.ts'
import type { Ipv6 } from '../values/ipv6.ts'
import type { FunctionName } from '../values/names.ts'
import { dnsPort, dnsTtlSeconds, serverAddress } from './addresses.ts'

/** The domain of all functions. */
export const zoneDomain = 'faas'
/** The guide's first serial. */
const firstSerial = 2025001
/** How soon a changed zone is served. CoreDNS looks at the file's first lines that often and stops at an unchanged serial. */
const zoneReloadMs = 100
/** The guide's upstreams. */
export const defaultUpstreams: readonly string[] = ['2001:4860:4860::8888', '2606:4700:4700::1111']

export type ZoneRecord = readonly [name: FunctionName, address: Ipv6]

export interface Zone {
  /** 32 bits (RFC 1035 §3.3.13). */
  readonly serial: number
  readonly records: readonly ZoneRecord[]
}

/** Zone file text (RFC 1035 §5). Same zone, same bytes: names are sorted. */
export function renderZone({ serial, records }: Zone): string {
  const all: [string, Ipv6][] = [
    ['ns', serverAddress],
    ...records.map(([name, address]) => [name, address] as [string, Ipv6]),
  ]
  const lines = all
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, address]) => `${name.padEnd(7)} IN  AAAA ${address}\n`)
  return `$ORIGIN ${zoneDomain}.
$TTL ${dnsTtlSeconds}

@       IN  SOA ns.${zoneDomain}. admin.${zoneDomain}. (
            ${String(serial).padEnd(7)} ; Serial
            3600    ; Refresh
            1800    ; Retry
            604800  ; Expire
            ${String(dnsTtlSeconds)} )    ; Minimum TTL

@       IN  NS  ns.${zoneDomain}.

${lines.join('')}`
}

/** The serial of a zone file that we wrote, or undefined for any other text. */
export function parseSerial(text: string): number | undefined {
  const digits = /^\s+(\d{1,10})\s+; Serial$/m.exec(text)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

export interface ZoneFileDeps {
  readonly path: string
  /**
   * The serial that the name server has, asked for only when the file cannot tell: the next one must differ from it, or the server
   * would keep serving what it has.
   */
  readonly servedSerial?: () => Promise<number | undefined>
}

export interface ZoneFile {
  /**
   * Makes the file exactly `records`, with a serial above every earlier one. Writes nothing, and answers false, when it is that already.
   * A missing, damaged or edited file is written anew.
   */
  apply(records: readonly ZoneRecord[]): Promise<boolean>
}

/** Owns one zone file. Calls are carried out one after another. */
export function createZoneFile({ path, servedSerial }: ZoneFileDeps): ZoneFile {
  let highest = 0
  let last: Promise<unknown> = Promise.resolve()

  const apply = async (records: readonly ZoneRecord[]): Promise<boolean> => {
    const text = await readTextIfExists(path)
    const stored = text === undefined ? undefined : parseSerial(text)
    if (stored !== undefined && stored >= highest && text === renderZone({ serial: stored, records })) {
      highest = stored
      return false
    }
    const known = Math.max(highest, stored ?? 0)
    const before = known > 0 ? known : ((await servedSerial?.()) ?? firstSerial - 1)
    highest = before + 1
    await mkdir(dirname(path), { recursive: true })
    await writeFileAtomic(path, renderZone({ serial: highest, records }))
    return true
  }

  return {
    apply: (records) => {
      const result = last.then(() => apply(records))
      last = result.catch(() => undefined)
      return result
    },
  }
}

const marker = '# Written by faasd, which may write it anew. Remove this line to keep the file as your own.'

export interface CorefileOptions {
  readonly zonePath: string
  /** Where other names are asked: addresses, or anything else that CoreDNS's `forward` takes. */
  readonly upstreams?: readonly string[]
}

/** The text of CoreDNS's Corefile. */
export function renderCorefile({ zonePath, upstreams = defaultUpstreams }: CorefileOptions): string {
  return `${marker}
${zoneDomain}:${dnsPort} {
    bind ${serverAddress}

    file ${zonePath} {
        reload ${zoneReloadMs}ms
    }

    log
    errors
}

.:${dnsPort} {
    bind ${serverAddress}
    forward . ${upstreams.join(' ')}
    log
    errors
}
`
}

/**
 * Writes the Corefile where there is none or where ours has changed; one without our marker is its writer's and stays. Answers whether
 * it was written: CoreDNS must be started anew to read it. Idempotent.
 */
export async function ensureCorefile({
  path,
  ...options
}: CorefileOptions & { readonly path: string }): Promise<boolean> {
  const wanted = renderCorefile(options)
  const present = await readTextIfExists(path)
  if (present === wanted || (present !== undefined && !present.startsWith(marker))) return false
  await mkdir(dirname(path), { recursive: true })
  await writeFileAtomic(path, wanted)
  return true
}
