import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseIpv6 } from '../values/ipv6.ts'
import { parseFunctionName } from '../values/names.ts'
import {
  createZoneFile,
  ensureCorefile,
  parseSerial,
  renderCorefile,
  renderZone,
  type ZoneRecord,
} from './dns.ts'

async function temporaryDirectory() {
  const path = await mkdtemp(join(tmpdir(), 'faasd-dns-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

const record = (name: string, address: string): ZoneRecord => [parseFunctionName(name), parseIpv6(address)]

test("renderZone() is the guide's zone with sorted names and an address for its name server", () => {
  assert.equal(
    renderZone({
      serial: 2025001,
      records: [record('thumbnails', 'fd00:faa5:1::b'), record('fibonacci', 'fd00:faa5:1::a')],
    }),
    `$ORIGIN faas.
$TTL 60

@       IN  SOA ns.faas. admin.faas. (
            2025001 ; Serial
            3600    ; Refresh
            1800    ; Retry
            604800  ; Expire
            60 )    ; Minimum TTL

@       IN  NS  ns.faas.

fibonacci IN  AAAA fd00:faa5:1::a
ns      IN  AAAA fd00:faa5:0:100::1
thumbnails IN  AAAA fd00:faa5:1::b
`,
  )
})

test('renderZone() sorts the same whatever the order of records', () => {
  const records = [record('b', '::2'), record('a', '::1'), record('c', '::3')]
  assert.equal(renderZone({ serial: 1, records }), renderZone({ serial: 1, records: records.toReversed() }))
})

test("parseSerial() finds the serial of our text and of the guide's, and none in other text", () => {
  assert.equal(parseSerial(renderZone({ serial: 2025017, records: [] })), 2025017)
  assert.equal(parseSerial(renderZone({ serial: 3_000_000_000, records: [] })), 3_000_000_000)
  assert.equal(parseSerial('garbage'), undefined)
})

test("createZoneFile() begins with the guide's serial, counts up, and writes nothing when nothing changed", async () => {
  await using directory = await temporaryDirectory()
  const path = join(directory.path, 'dns', 'faas.db')
  const zone = createZoneFile({ path })
  const serial = async () => parseSerial(await readFile(path, 'utf8'))
  assert.equal(await zone.apply([]), true)
  assert.equal(await serial(), 2025001)
  const { ino } = await stat(path)
  assert.equal(await zone.apply([]), false)
  assert.equal((await stat(path)).ino, ino)
  assert.equal(await zone.apply([record('a', 'fd00:faa5:1::a')]), true)
  assert.equal(await serial(), 2025002)
  assert.equal(await createZoneFile({ path }).apply([record('a', 'fd00:faa5:1::a')]), false)
  assert.equal(await createZoneFile({ path }).apply([]), true)
  assert.equal(await serial(), 2025003)
})

test('B77 createZoneFile() writes a damaged, deleted or edited zone anew, and its serial still rises', async () => {
  await using directory = await temporaryDirectory()
  const path = join(directory.path, 'faas.db')
  const zone = createZoneFile({ path })
  const records = [record('a', 'fd00:faa5:1::a')]
  const serial = async () => parseSerial(await readFile(path, 'utf8'))
  await zone.apply(records)
  await writeFile(path, 'garbage ; Serial')
  assert.equal(await zone.apply(records), true)
  assert.equal(await serial(), 2025002)
  await rm(path)
  assert.equal(await zone.apply(records), true)
  assert.equal(await serial(), 2025003)
  await writeFile(path, `${await readFile(path, 'utf8')}evil IN AAAA fd00::1\n`)
  assert.equal(await zone.apply(records), true)
  assert.equal(await serial(), 2025004)
  // An older copy put back: what the server has seen already must not be given again.
  await writeFile(path, renderZone({ serial: 2025001, records }))
  assert.equal(await zone.apply(records), true)
  assert.equal(await serial(), 2025005)
})

test('createZoneFile() asks for the serial that is served when the file cannot tell', async () => {
  await using directory = await temporaryDirectory()
  const path = join(directory.path, 'faas.db')
  await createZoneFile({ path, servedSerial: async () => 2025040 }).apply([])
  assert.equal(parseSerial(await readFile(path, 'utf8')), 2025041)
})

test('createZoneFile() carries out simultaneous changes one after another', async () => {
  await using directory = await temporaryDirectory()
  const path = join(directory.path, 'faas.db')
  const zone = createZoneFile({ path })
  await Promise.all(['a', 'b', 'c'].map((name) => zone.apply([record(name, 'fd00:faa5:1::a')])))
  assert.equal(
    await readFile(path, 'utf8'),
    renderZone({ serial: 2025003, records: [record('c', 'fd00:faa5:1::a')] }),
  )
})

test("renderCorefile() is the guide's Corefile with a shorter reload", () => {
  assert.equal(
    renderCorefile({ zonePath: '/var/lib/faasd/dns/faas.db' }),
    `# Written by faasd, which may write it anew. Remove this line to keep the file as your own.
faas:53 {
    bind fd00:faa5:0:100::1

    file /var/lib/faasd/dns/faas.db {
        reload 100ms
    }

    log
    errors
}

.:53 {
    bind fd00:faa5:0:100::1
    forward . 2001:4860:4860::8888 2606:4700:4700::1111
    log
    errors
}
`,
  )
})

test("ensureCorefile() writes what is missing or ours, and keeps a user's own", async () => {
  await using directory = await temporaryDirectory()
  const path = join(directory.path, 'coredns', 'Corefile')
  const zonePath = '/z'
  assert.equal(await ensureCorefile({ path, zonePath }), true)
  assert.equal(await ensureCorefile({ path, zonePath }), false)
  assert.equal(await ensureCorefile({ path, zonePath, upstreams: ['192.0.2.1'] }), true)
  await writeFile(path, 'faas:53 {\n}\n')
  assert.equal(await ensureCorefile({ path, zonePath }), false)
  assert.equal(await readFile(path, 'utf8'), 'faas:53 {\n}\n')
})
