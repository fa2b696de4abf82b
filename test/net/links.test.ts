/** Real addresses on a real link. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { exec } from '../../src/host/exec.ts'
import { createLinks } from '../../src/net/links.ts'
import { parseIpv6 } from '../../src/values/ipv6.ts'
import { enterNamespaces } from './namespace.ts'

if (enterNamespaces(import.meta.filename, [])) {
  const links = createLinks({ exec })
  const addresses = async () =>
    (await links.listAddresses()).map(({ address, prefixLength }) => `${address}/${prefixLength}`).sort()
  const wanted = ['fd00:faa5:1::a', 'fd00:faa5:1::b'].map(parseIpv6)
  const ofServer = 'fd00:faa5:0:100::1/64'

  before(() => exec('ip', ['tuntap', 'add', 'wg0', 'mode', 'tun']))
  after(() => exec('ip', ['link', 'delete', 'wg0'], { okCodes: [0, 1] }))

  test('applyAddresses() brings the link up with the server, quarantine and the functions', async () => {
    await links.applyAddresses(wanted)
    assert.deepEqual(await addresses(), [ofServer, 'fd00:faa5:1::a/128', 'fd00:faa5:1::b/128'])
    const { stdout } = await exec('ip', ['-6', 'route', 'show', 'dev', 'wg0'])
    assert.match(stdout, /^fd00:faa5:0:100::\/64 /m)
    assert.match(stdout, /^fd00:faa5:0:200::\/64 /m)
    await links.applyAddresses(wanted)
    assert.deepEqual(await addresses(), [ofServer, 'fd00:faa5:1::a/128', 'fd00:faa5:1::b/128'])
  })

  test('applyAddresses() removes what is not wanted and leaves foreign addresses (F30)', async () => {
    await exec('ip', ['-6', 'address', 'add', 'fd12::7/64', 'dev', 'wg0'])
    await exec('ip', ['-6', 'address', 'add', 'fd00:faa5:1::dead/128', 'dev', 'wg0'])
    await links.applyAddresses(wanted.slice(1))
    assert.deepEqual(await addresses(), [ofServer, 'fd00:faa5:1::b/128', 'fd12::7/64'])
  })

  test('applyAddresses() heals a link that was set down', async () => {
    await exec('ip', ['link', 'set', 'wg0', 'down'])
    await links.applyAddresses(wanted)
    assert.deepEqual(
      (await addresses()).filter((address) => address !== 'fd12::7/64'),
      [ofServer, 'fd00:faa5:1::a/128', 'fd00:faa5:1::b/128'],
    )
  })

  test('a function address is routed to the server itself', async () => {
    const { stdout } = await exec('ip', ['-6', 'route', 'get', 'fd00:faa5:1:0::a'])
    assert.match(stdout, /^local fd00:faa5:1::a /)
  })

  test('applyAddresses() adds two thousand addresses in one go', async () => {
    const many = Array.from({ length: 2_000 }, (_, index) =>
      parseIpv6(`fd00:faa5:1::${(index + 10).toString(16)}`),
    )
    await links.applyAddresses(many)
    assert.ok((await addresses()).length > 2_000)
  })

  test('cleanUp() takes the functions off, and a link that is gone is NOT_READY', async () => {
    await links.cleanUp()
    assert.ok(!(await addresses()).some((address) => address.endsWith('/128')))
    await exec('ip', ['link', 'delete', 'wg0'])
    await links.cleanUp()
    await assert.rejects(links.applyAddresses([]), { code: 'NOT_READY' })
  })
}
