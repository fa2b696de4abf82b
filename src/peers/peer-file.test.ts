import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIpv6 } from '../values/ipv6.ts'
import { parsePeerName } from '../values/names.ts'
import { generateKeyPair } from './keys.ts'
import { parsePeerFile, renderPeerFile } from './peer-file.ts'

const name = parsePeerName('laptop')
const { publicKey } = generateKeyPair()
const address = parseIpv6('fd00:faa5:0:100::a')
const modified = new Date('2026-02-01T00:00:00Z')
const peer = { name, publicKey, address, created: '2026-01-31T12:00:00.000Z' }
const parse = (text: string) => parsePeerFile(name, text, modified)

test('renderPeerFile() writes what wg reads, without the name', () => {
  assert.equal(
    renderPeerFile(peer),
    `# Created = 2026-01-31T12:00:00.000Z\n[Peer]\nPublicKey = ${publicKey}\nAllowedIPs = fd00:faa5:0:100::a/128\n`,
  )
})

test('parsePeerFile() reads back what was written, and what a person wrote alike', () => {
  assert.deepEqual(parse(renderPeerFile(peer)), peer)
  const byHand = `\n# my laptop\n[peer]\npublickey=${publicKey}\nALLOWEDIPS = fd00:faa5:0:100:0:0:0:a/128`
  assert.deepEqual(parse(byHand), { ...peer, created: modified.toISOString() })
})

test('parsePeerFile() refuses anything else, and says what', () => {
  const key = `PublicKey = ${publicKey}`
  const cases: [string, RegExp][] = [
    ['', /no PublicKey/],
    ['[Peer]\n', /no PublicKey/],
    [`[Peer]\n${key}\n`, /no AllowedIPs/],
    [`${key}\n[Peer]\nAllowedIPs = ${address}/128`, /line 1/],
    [`[Peer]\n${key}\nAllowedIPs = ${address}/64`, /\/128/],
    [`[Peer]\n${key}\nAllowedIPs = ${address}/128, ::/0`, /line 3/],
    [`[Peer]\n${key}\nAllowedIPs = 10.0.0.1/128`, /IPv6/],
    [`[Peer]\n${key}\n${key}\nAllowedIPs = ${address}/128`, /second time/],
    [`[Peer]\n${key}\nAllowedIPs = ${address}/128\n[Peer]\n`, /second \[Peer\]/],
    [`[Interface]\nPostUp = id\n[Peer]\n${key}\nAllowedIPs = ${address}/128`, /line 1/],
    [`[Peer]\n${key}\nAllowedIPs = ${address}/128\nPostUp = id`, /line 4/],
    [`[Peer]\nPublicKey = ${Buffer.alloc(32).toString('base64')}\nAllowedIPs = ${address}/128`, /zero/],
  ]
  for (const [text, message] of cases) assert.throws(() => parse(text), { message }, text)
})
