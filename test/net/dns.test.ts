/** A real CoreDNS with our Corefile and zone, asked as a device asks. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { toolsDirectory } from '../../packaging/tools/tools.ts'
import { systemClock } from '../../src/host/clock.ts'
import { eventually } from '../../src/host/eventually.ts'
import { exec } from '../../src/host/exec.ts'
import { serverAddress } from '../../src/net/addresses.ts'
import { createZoneFile, ensureCorefile, parseSerial, type ZoneRecord } from '../../src/net/dns.ts'
import { createNameProbe } from '../../src/net/name-probe.ts'
import { parseIpv6 } from '../../src/values/ipv6.ts'
import { parseFunctionName } from '../../src/values/names.ts'
import { enterNamespaces, missingFor } from './namespace.ts'

if (enterNamespaces(import.meta.filename, [])) {
  const [coredns = 'coredns'] = globSync(join(toolsDirectory(process.env), 'coredns-*/coredns'))
  const skip = missingFor([coredns]) ?? false
  const skipDig = skip || (missingFor(['dig']) ?? false)
  const directory = await mkdtemp(join(tmpdir(), 'faasd-dns-'))
  const zonePath = join(directory, 'faas.db')
  const zone = createZoneFile({ path: zonePath })
  const probe = createNameProbe({ clock: systemClock })
  const record = (name: string, address: string): ZoneRecord => [parseFunctionName(name), parseIpv6(address)]
  const fibonacci = record('fibonacci', 'fd00:faa5:1::a')
  let child: ChildProcess | undefined

  async function startCoredns(): Promise<void> {
    child = spawn(coredns, ['-conf', join(directory, 'Corefile')], { stdio: 'ignore' })
    await eventually('CoreDNS answers', async () => assert.ok(await probe.servedSerial()))
  }
  async function stopCoredns(): Promise<void> {
    if (child?.exitCode !== null || !child.kill('SIGKILL')) return
    await once(child, 'exit')
  }
  const dig = async (...args: string[]) =>
    (await exec('dig', [`@${serverAddress}`, '+tries=1', ...args])).stdout

  before(async () => {
    await exec('ip', ['tuntap', 'add', 'wg0', 'mode', 'tun'])
    await exec('ip', ['-6', 'address', 'add', `${serverAddress}/64`, 'dev', 'wg0', 'nodad'])
    await exec('ip', ['link', 'set', 'wg0', 'up'])
    await zone.apply([])
    await ensureCorefile({ path: join(directory, 'Corefile'), zonePath, upstreams: ['192.0.2.53'] })
    if (skip === false) await startCoredns()
  })
  after(async () => {
    await stopCoredns()
    await rm(directory, { recursive: true })
  })

  test('a new name is served soon after apply(), and a removed one is gone', { skip }, async (t) => {
    const waitsMs: number[] = []
    for (let round = 0; round < 10; round++) {
      const start = performance.now()
      await zone.apply([fibonacci])
      await probe.waitForAddress(fibonacci[0], fibonacci[1], 10_000)
      waitsMs.push(performance.now() - start)
      await zone.apply([])
      await probe.waitForAddress(fibonacci[0], undefined, 10_000)
    }
    const sorted = waitsMs.map(Math.round).sort((one, other) => one - other)
    t.diagnostic(
      `a changed zone was served after ${sorted[0]} to ${sorted.at(-1)} ms, median ${sorted[5]} ms`,
    )
  })

  test('waitForAddress() waits for the new address of a name and says what it got', { skip }, async () => {
    const [name] = fibonacci
    await zone.apply([fibonacci])
    await probe.waitForAddress(name, fibonacci[1], 10_000)
    const waiting = probe.waitForAddress(name, parseIpv6('fd00:faa5:1::b'), 10_000)
    await zone.apply([record('fibonacci', 'fd00:faa5:1::b')])
    await waiting
    await assert.rejects(probe.waitForAddress(name, fibonacci[1], 100), {
      code: 'DNS_TIMEOUT',
      message: /should be fd00:faa5:1::a .* says fd00:faa5:1::b$/,
    })
    await assert.rejects(probe.waitForAddress(name, undefined, 100), { code: 'DNS_TIMEOUT' })
  })

  test("the guide's dig command prints the address", { skip: skipDig }, async () => {
    await zone.apply([fibonacci])
    await probe.waitForAddress(...fibonacci, 10_000)
    assert.equal(await dig('fibonacci.faas', 'AAAA', '+short'), 'fd00:faa5:1::a\n')
    assert.equal(await dig('+tcp', 'fibonacci.faas', 'AAAA', '+short'), 'fd00:faa5:1::a\n')
    assert.equal(await dig('faas', 'NS', '+short'), 'ns.faas.\n')
    assert.equal(await dig('ns.faas', 'AAAA', '+short'), `${serverAddress}\n`)
  })

  test('B78 other questions: A is NODATA, a zone transfer is refused, an unknown name is NXDOMAIN', {
    skip: skipDig,
  }, async () => {
    await zone.apply([fibonacci])
    await probe.waitForAddress(...fibonacci, 10_000)
    const nodata = await dig('fibonacci.faas', 'A')
    assert.match(nodata, /status: NOERROR/)
    assert.match(nodata, /ANSWER: 0/)
    assert.match(await dig('nobody.faas', 'AAAA'), /status: NXDOMAIN/)
    assert.match(await dig('faas', 'AXFR'), /Transfer failed/)
    const any = await dig('+notcp', 'fibonacci.faas', 'ANY')
    assert.match(any, /ANSWER: [01],/)
  })

  test('B77 a zone that was damaged under a running CoreDNS is served again after apply()', {
    skip,
  }, async () => {
    await zone.apply([fibonacci])
    await probe.waitForAddress(...fibonacci, 10_000)
    const serial = parseSerial(await readFile(zonePath, 'utf8')) ?? 0
    await writeFile(zonePath, 'garbage (')
    // A daemon that was started anew knows no serial: it asks the server.
    const anew = createZoneFile({ path: zonePath, servedSerial: () => probe.servedSerial() })
    const other = record('other', 'fd00:faa5:1::b')
    await anew.apply([fibonacci, other])
    await probe.waitForAddress(...other, 10_000)
    assert.ok((parseSerial(await readFile(zonePath, 'utf8')) ?? 0) > serial)
  })

  test('the server goes on answering on an address that was taken away and given again', {
    skip,
  }, async () => {
    await exec('ip', ['-6', 'address', 'del', `${serverAddress}/64`, 'dev', 'wg0'])
    assert.equal(await probe.servedSerial(), undefined)
    await exec('ip', ['-6', 'address', 'add', `${serverAddress}/64`, 'dev', 'wg0', 'nodad'])
    await eventually('CoreDNS answers', async () => assert.ok(await probe.servedSerial()))
  })

  test('waitForAddress() outlasts a restart of CoreDNS, and gives up in time without one', {
    skip,
  }, async () => {
    await stopCoredns()
    await assert.rejects(probe.waitForAddress(...fibonacci, 200), { code: 'DNS_TIMEOUT', status: 504 })
    const waiting = probe.waitForAddress(...fibonacci, 10_000)
    await startCoredns()
    await waiting
  })
}
