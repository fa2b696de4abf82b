import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Exec } from '../host/exec.ts'
import { FaasError } from '../values/errors.ts'
import { parseIpv6 } from '../values/ipv6.ts'
import { createFirewall, parseTableListing, renderFirewall } from './firewall.ts'

const listener = (address: string, port = 80) => ({ address: parseIpv6(address), port })

test('renderFirewall() replaces the whole table in one transaction', () => {
  assert.equal(
    renderFirewall({ listeners: [listener('fd00:faa5:1::b'), listener('fd00:faa5:1::a')] }),
    `add table inet faasd
delete table inet faasd
table inet faasd {
  set listeners {
    type ipv6_addr . inet_service
    elements = {
      fd00:faa5:1::a . 80,
      fd00:faa5:1::b . 80
    }
  }

  chain output {
    type filter hook output priority -310; policy accept;
    meta mark 0xfaa5 goto passed
    oifname "lo" ip6 daddr fd00:faa5:1::/48 meta skuid != 0 tcp flags & (syn | ack) == syn reject with tcp reset
  }

  chain passed {
    tcp flags & (syn | ack) == syn reject with tcp reset
    oifname { "lo", "wg0" } ip6 nexthdr tcp ip6 saddr . tcp sport @listeners accept
    drop
  }

  chain input {
    type filter hook input priority 0; policy accept;
    iifname "wg0" goto from_tunnel
    iifname "lo" accept
    ip6 saddr fd00:faa5::/32 drop
    ip6 daddr fd00:faa5::/32 drop
  }

  chain from_tunnel {
    ip6 saddr fd00:faa5:0:200::/64 ip6 daddr fd00:faa5:0:100::1 tcp dport 51821 accept
    ip6 saddr fd00:faa5:0:100::/64 goto from_peer
    drop
  }

  chain from_peer {
    ip6 daddr fd00:faa5:0:100::1 udp dport 53 accept
    ip6 daddr fd00:faa5:0:100::1 tcp dport 53 accept
    ip6 daddr . tcp dport @listeners accept
    ip6 daddr { fd00:faa5:0:100::1, fd00:faa5:1::/48 } icmpv6 type { echo-request, echo-reply } accept
    ip6 daddr fd00:faa5:1::/48 meta l4proto tcp reject with tcp reset
    drop
  }

  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname "wg0" ip6 saddr fd00:faa5:0:100::/64 ip6 daddr fd00:faa5:1::/48 reject with icmpv6 type addr-unreachable
    iifname "wg0" drop
    oifname "wg0" drop
  }
}
`,
  )
})

test('renderFirewall() without a listener leaves the set empty', () => {
  assert.match(
    renderFirewall({ listeners: [] }),
    /set listeners {\n {4}type ipv6_addr \. inet_service\n {2}}/,
  )
})

test('parseTableListing() takes the elements out of the rules, in any order and layout', () => {
  const withElements = `table inet faasd {
	set listeners {
		type ipv6_addr . inet_service
		elements = { fd00:faa5:1::b . 80,
			     fd00:faa5:1::a . 80 }
	}
	chain passed {
		drop
	}
}
`
  const without = withElements.replace(/\t\telements[^}]*}\n/, '')
  assert.deepEqual(parseTableListing(withElements), {
    rules: without,
    listeners: ['fd00:faa5:1::a . 80', 'fd00:faa5:1::b . 80'],
  })
  assert.deepEqual(parseTableListing(without), { rules: without, listeners: [] })
})

/** An nft that remembers what it was given and lists what it is told to. */
function fakeNft() {
  const nft = {
    loaded: [] as string[],
    listing: 'table inet faasd {\n}\n',
    failure: undefined as FaasError | undefined,
  }
  const exec: Exec = async (_command, args) => {
    if (nft.failure) throw nft.failure
    if (args[0] === '-f') nft.loaded.push(await readFile(args[1] ?? '', 'utf8'))
    else if (args.length === 1) nft.loaded.push(args[0] ?? '')
    return { stdout: args.includes('list') ? nft.listing : '', stderr: '', code: 0 }
  }
  return { nft, exec }
}

test('removeListeners() adds before it deletes, so that what is gone already is no error', async () => {
  const { nft, exec } = fakeNft()
  await createFirewall({ exec }).removeListeners([listener('fd00:faa5:1::a')])
  assert.deepEqual(nft.loaded, [
    'add element inet faasd listeners { fd00:faa5:1::a . 80 }\ndelete element inet faasd listeners { fd00:faa5:1::a . 80 }\n',
  ])
})

test('a text that is too long for an argument goes through a file, which is gone afterwards', async () => {
  const { nft, exec } = fakeNft()
  const directory = await mkdtemp(join(tmpdir(), 'faasd-firewall-'))
  const many = Array.from({ length: 5_000 }, (_, index) => listener('fd00:faa5:1::a', index + 1))
  await createFirewall({ exec, directory }).addListeners(many)
  assert.equal(nft.loaded[0]?.match(/fd00:faa5:1::a/g)?.length, 5_000)
  assert.deepEqual(await readdir(directory), [])
  await rm(directory, { recursive: true })
})

test('changing no listener runs nothing', async () => {
  const { nft, exec } = fakeNft()
  const firewall = createFirewall({ exec })
  await firewall.addListeners([])
  await firewall.removeListeners([])
  assert.deepEqual(nft.loaded, [])
})

test('verify() is false before the first apply() and when nft fails', async () => {
  const { nft, exec } = fakeNft()
  const firewall = createFirewall({ exec })
  assert.equal(await firewall.verify(), false)
  await firewall.apply({ listeners: [] })
  assert.equal(await firewall.verify(), true)
  nft.failure = new FaasError('COMMAND_FAILED', 'No such file or directory')
  assert.equal(await firewall.verify(), false)
})

test('apply() that fails leaves verify() false', async () => {
  const { nft, exec } = fakeNft()
  const firewall = createFirewall({ exec })
  await firewall.apply({ listeners: [] })
  nft.failure = new FaasError('COMMAND_FAILED', 'Operation not permitted')
  await assert.rejects(firewall.apply({ listeners: [] }), { code: 'COMMAND_FAILED' })
  nft.failure = undefined
  assert.equal(await firewall.verify(), false)
})

test('apply() refuses a table that does not hold the listeners it was given', async () => {
  const { exec } = fakeNft()
  const firewall = createFirewall({ exec })
  await assert.rejects(firewall.apply({ listeners: [listener('fd00:faa5:1::a')] }), {
    code: 'FIREWALL_NOT_IN_PLACE',
  })
})
