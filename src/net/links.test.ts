import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Exec } from '../host/exec.ts'
import { FaasError } from '../values/errors.ts'
import { parseIpv6 } from '../values/ipv6.ts'
import { createLinks, parseLinkState, renderLinkChanges } from './links.ts'

const at = (address: string, prefixLength = 128) => ({ address: parseIpv6(address), prefixLength })
const settled = {
  up: true,
  addresses: [at('fd00:faa5:0:100::1', 64)],
  routes: ['fd00:faa5:0:100::/64', 'fd00:faa5:0:200::/64'],
}

test('renderLinkChanges() adds what is missing before it takes away what is not wanted', () => {
  const present = {
    ...settled,
    addresses: [...settled.addresses, at('fd00:faa5:1::a'), at('fd00:faa5:1::b')],
  }
  const wanted = ['fd00:faa5:1::b', 'fd00:faa5:1::c', 'fd00:faa5:1::c'].map(parseIpv6)
  assert.deepEqual(renderLinkChanges(present, wanted), [
    'address add fd00:faa5:1::c/128 dev wg0 nodad',
    'address del fd00:faa5:1::a/128 dev wg0',
  ])
})

test('renderLinkChanges() leaves foreign addresses alone and changes nothing when all is right', () => {
  const foreign = [at('fe80::1', 64), at('fd12::1'), at('fd00:faa5:1:7::1', 64), at('fd00:faa5:0:100::5')]
  assert.deepEqual(renderLinkChanges({ ...settled, addresses: [...settled.addresses, ...foreign] }, []), [])
})

test('renderLinkChanges() heals a link that was set down', () => {
  assert.deepEqual(
    renderLinkChanges({ up: false, addresses: [], routes: [] }, [parseIpv6('fd00:faa5:1::a')]),
    [
      'link set dev wg0 up',
      'address add fd00:faa5:0:100::1/64 dev wg0 nodad',
      'route replace fd00:faa5:0:200::/64 dev wg0',
      'address add fd00:faa5:1::a/128 dev wg0 nodad',
    ],
  )
})

test('parseLinkState() reads the JSON of ip, also that of a link without addresses', () => {
  assert.deepEqual(
    parseLinkState(
      '[{},{"ifname":"wg0","flags":["NOARP","UP"],"addr_info":[{"family":"inet6","local":"fd00:faa5:1::a","prefixlen":128}]}]',
      '[{"dst":"fd00:faa5:0:200::/64","protocol":"boot"}]',
    ),
    { up: true, addresses: [at('fd00:faa5:1::a')], routes: ['fd00:faa5:0:200::/64'] },
  )
  assert.deepEqual(parseLinkState('[]', ''), { up: false, addresses: [], routes: [] })
})

test('a missing link is NOT_READY for applyAddresses() and nothing to do for cleanUp()', async () => {
  const exec: Exec = async () => {
    throw new FaasError('COMMAND_FAILED', 'ip exited with 1: Device "wg0" does not exist.')
  }
  await assert.rejects(createLinks({ exec }).applyAddresses([]), { code: 'NOT_READY' })
  await createLinks({ exec }).cleanUp()
})
