/** IPv6 addresses: text to 16 bytes and back, in the canonical form of RFC 5952. */
import { isIPv6 } from 'node:net'

declare const checked: unique symbol

/** An IPv6 address in canonical text form; made only by {@link parseIpv6} and {@link formatIpv6}. */
export type Ipv6 = string & { readonly [checked]: 'ipv6' }

/** The 16 bytes of an address in any of its text forms (no zone index). Throws TypeError for anything else. */
export function ipv6Bytes(text: string): Buffer {
  if (!isIPv6(text) || text.includes('%')) throw new TypeError(`not an IPv6 address: ${JSON.stringify(text)}`)
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text)
  const plain = dotted
    ? dotted[1] +
      hexPair(Number(dotted[2]), Number(dotted[3])) +
      ':' +
      hexPair(Number(dotted[4]), Number(dotted[5]))
    : text
  const [head = '', tail] = plain.split('::')
  const headGroups = head === '' ? [] : head.split(':')
  const tailGroups = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = Array.from({ length: 8 - headGroups.length - tailGroups.length }, () => '0')
  const groups = tail === undefined ? headGroups : [...headGroups, ...zeros, ...tailGroups]
  const bytes = Buffer.alloc(16)
  for (const [index, group] of groups.entries()) bytes.writeUInt16BE(Number.parseInt(group, 16), index * 2)
  return bytes
}

const hexPair = (high: number, low: number): string => ((high << 8) | low).toString(16)

/** Canonical text of 16 bytes: lower case, the longest run of two or more zero groups as `::` (RFC 5952 §4). */
export function formatIpv6(bytes: Uint8Array): Ipv6 {
  const groups = Array.from(
    { length: 8 },
    (_, index) => ((bytes[index * 2] ?? 0) << 8) | (bytes[index * 2 + 1] ?? 0),
  )
  let best = { start: -1, length: 1 }
  for (let start = 0; start < 8; start++) {
    let length = 0
    while (start + length < 8 && groups[start + length] === 0) length++
    if (length > best.length) best = { start, length }
  }
  const text = (part: number[]): string => part.map((group) => group.toString(16)).join(':')
  if (best.start < 0) return text(groups) as Ipv6
  return `${text(groups.slice(0, best.start))}::${text(groups.slice(best.start + best.length))}` as Ipv6
}

/** Any text form of an address in its canonical one. Throws TypeError. */
export const parseIpv6 = (text: string): Ipv6 => formatIpv6(ipv6Bytes(text))
