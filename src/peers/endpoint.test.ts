import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Exec } from '../host/exec.ts'
import { FaasError } from '../values/errors.ts'
import { findEndpoint, parseEndpoint, renderEndpoint } from './endpoint.ts'

const routes =
  (answers: Record<string, string | undefined>): Exec =>
  async (_command, args) => {
    const stdout = answers[args[0] ?? '']
    return { stdout: stdout ?? '', stderr: '', code: stdout === undefined ? 2 : 0 }
  }

test('parseEndpoint() reads every form of FAAS_VPN_ENDPOINT, and renderEndpoint() writes what wg reads', () => {
  const cases: [string, string][] = [
    ['faas.example.com', 'faas.example.com:51820'],
    ['FAAS.example.com:443', 'faas.example.com:443'],
    ['203.0.113.10', '203.0.113.10:51820'],
    ['203.0.113.10:7', '203.0.113.10:7'],
    ['2001:DB8:0::1', '[2001:db8::1]:51820'],
    ['[2001:db8::1]', '[2001:db8::1]:51820'],
    [' [2001:db8::1]:9 ', '[2001:db8::1]:9'],
  ]
  for (const [text, rendered] of cases) assert.equal(renderEndpoint(parseEndpoint(text)), rendered)
})

test('parseEndpoint() refuses what is no endpoint', () => {
  for (const text of [
    '',
    ':51820',
    'a:0',
    'a:65536',
    'a:1:2',
    '256.1.1.1',
    '1.2.3',
    'a b',
    'a/b',
    '-a',
    '[::1',
    '[fe80::1%eth0]:1',
    'x\nPostUp = id',
    `${'a'.repeat(64)}.de`,
  ]) {
    assert.throws(() => parseEndpoint(text), { code: 'OPTION_INVALID' }, JSON.stringify(text))
  }
})

test('findEndpoint() prefers what is stated, and asks no program then', async () => {
  const exec: Exec = async () => assert.fail('no program is needed')
  const found = await findEndpoint('vpn.example:1', { exec })
  assert.deepEqual(found, { endpoint: { host: 'vpn.example', port: 1 }, source: 'stated' })
})

test('findEndpoint() takes the source address of the default route, IPv4 first, and says so', async () => {
  const exec = routes({
    '-4': '[{"dst":"192.0.2.1","dev":"eth0","prefsrc":"198.51.100.7"}]',
    '-6': '[{"dst":"2001:db8::1","dev":"eth0","prefsrc":"2001:db8::7"}]',
  })
  const found = await findEndpoint(undefined, { exec })
  assert.deepEqual(found.endpoint, { host: '198.51.100.7', port: 51820 })
  assert.match(found.warning ?? '', /198\.51\.100\.7 is detected/)
  const six = await findEndpoint('', { exec: routes({ '-6': '[{"dev":"eth0","prefsrc":"2001:db8::7"}]' }) })
  assert.deepEqual(six.endpoint, { host: '2001:db8::7', port: 51820 })
})

test('findEndpoint() warns of a private address, and gives up where no route tells one', async () => {
  const exec = routes({ '-4': '[{"dev":"eth0","prefsrc":"192.168.1.5"}]' })
  assert.match((await findEndpoint(undefined, { exec })).warning ?? '', /private address/)
  await assert.rejects(
    findEndpoint(undefined, { exec: routes({}) }),
    (error: unknown) => error instanceof FaasError && error.code === 'ENDPOINT_UNKNOWN',
  )
})
