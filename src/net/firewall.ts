/**
 * The platform's packet filter: one nftables table, `inet faasd`, that is ours alone and is always replaced whole, in one
 * transaction. It keeps no connection state; every rule judges one packet.
 *
 * What it holds up:
 * - A socket that was passed to a function (mark {@link passedSocketMark}) can answer and can never originate: no packet of
 *   it that opens a flow leaves, whatever call began it, and none that does not come from a listener of ours.
 * - Peers reach DNS and functions, invited devices the join service, and neither reaches anything else.
 * - The platform's addresses, to which Linux would answer on every interface, answer on the tunnel only.
 * - Other users of the server do not call functions behind WireGuard's back.
 *
 * A drop or a reject is final whatever other tables accept, so nobody else's rules widen ours. `output` runs before `raw`
 * and `mangle`, where other tables may change marks. nftables 0.9.8 (Debian 11) and newer read the text: a chain may not have the name of any keyword there.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Exec } from '../host/exec.ts'
import { FaasError } from '../values/errors.ts'
import { type Ipv6, parseIpv6 } from '../values/ipv6.ts'
import {
  dnsPort,
  functionsPrefix,
  joinPort,
  passedSocketMark,
  peersPrefix,
  platformPrefix,
  quarantinePrefix,
  serverAddress,
  serverLink,
} from './addresses.ts'

const family = 'inet'
const tableName = 'faasd'
const table = `${family} ${tableName}`
/** Before `raw` (-300) and `mangle` (-150). */
const beforeMarksChange = -310

/** The kernel takes arguments of up to 128 KiB (execve(2)): some 3,500 listeners. */
const maxArgumentBytes = 100 * 1024

/** Where a function is called. */
export interface ListenerAddress {
  readonly address: Ipv6
  readonly port: number
}

export interface FirewallState {
  /** Every listener whose accepted connections may still be alive, also of functions that are just being removed. */
  readonly listeners: readonly ListenerAddress[]
}

const elementOf = ({ address, port }: ListenerAddress): string => `${address} . ${port}`
const sortedElements = (listeners: readonly ListenerAddress[]): string[] =>
  [...new Set(listeners.map(elementOf))].sort()

/** The text that `nft -f` makes the whole desired state of, from any earlier state. Same state, same bytes. */
export function renderFirewall(state: FirewallState): string {
  const elements = sortedElements(state.listeners)
  const elementLines =
    elements.length === 0 ? '' : `\n    elements = {\n      ${elements.join(',\n      ')}\n    }`
  return `add table ${table}
delete table ${table}
table ${table} {
  set listeners {
    type ipv6_addr . inet_service${elementLines}
  }

  chain output {
    type filter hook output priority ${beforeMarksChange}; policy accept;
    meta mark 0x${passedSocketMark.toString(16)} goto passed
    oifname "lo" ip6 daddr ${functionsPrefix} meta skuid != 0 tcp flags & (syn | ack) == syn reject with tcp reset
  }

  chain passed {
    tcp flags & (syn | ack) == syn reject with tcp reset
    oifname { "lo", "${serverLink}" } ip6 nexthdr tcp ip6 saddr . tcp sport @listeners accept
    drop
  }

  chain input {
    type filter hook input priority 0; policy accept;
    iifname "${serverLink}" goto from_tunnel
    iifname "lo" accept
    ip6 saddr ${platformPrefix} drop
    ip6 daddr ${platformPrefix} drop
  }

  chain from_tunnel {
    ip6 saddr ${quarantinePrefix} ip6 daddr ${serverAddress} tcp dport ${joinPort} accept
    ip6 saddr ${peersPrefix} goto from_peer
    drop
  }

  chain from_peer {
    ip6 daddr ${serverAddress} udp dport ${dnsPort} accept
    ip6 daddr ${serverAddress} tcp dport ${dnsPort} accept
    ip6 daddr . tcp dport @listeners accept
    ip6 daddr { ${serverAddress}, ${functionsPrefix} } icmpv6 type { echo-request, echo-reply } accept
    ip6 daddr ${functionsPrefix} meta l4proto tcp reject with tcp reset
    drop
  }

  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname "${serverLink}" ip6 saddr ${peersPrefix} ip6 daddr ${functionsPrefix} reject with icmpv6 type addr-unreachable
    iifname "${serverLink}" drop
    oifname "${serverLink}" drop
  }
}
`
}

/** A stateless listing of the table, taken apart: the rules, and the elements of its set of listeners. */
export interface TableListing {
  readonly rules: string
  /** `ADDRESS . PORT`, sorted. */
  readonly listeners: readonly string[]
}

const elementsPattern = /^\s*elements = \{([^}]*)\}\n/m

/** Takes the answer of `nft -s -n list table` apart. */
export function parseTableListing(text: string): TableListing {
  const listed = elementsPattern.exec(text)?.[1] ?? ''
  const listeners = listed
    .split(',')
    .map((element) => element.trim())
    .filter((element) => element !== '')
    .map((element) => {
      const [address = '', port = ''] = element.split(' . ')
      return elementOf({ address: parseIpv6(address), port: Number(port) })
    })
  return { rules: text.replace(elementsPattern, ''), listeners: listeners.sort() }
}

export interface Firewall {
  /** Makes the table exactly `state`, in one transaction: there is no moment without the old rules or the new. Idempotent. */
  apply(state: FirewallState): Promise<void>
  /** Opens listeners. Idempotent. Throws FIREWALL_NOT_IN_PLACE when the table is not there. */
  addListeners(listeners: readonly ListenerAddress[]): Promise<void>
  /**
   * Closes listeners, and with them every connection accepted there: call it when the last one is done.
   * Idempotent. Throws FIREWALL_NOT_IN_PLACE when the table is not there.
   */
  removeListeners(listeners: readonly ListenerAddress[]): Promise<void>
  /**
   * Whether the table is what the last `apply` and the changes of listeners since then made it: false when it is gone, when
   * a rule or an element was added or taken, and before the first `apply`. No socket may be passed to a function meanwhile.
   */
  verify(): Promise<boolean>
  /** Removes the table, whoever made it. Idempotent. */
  cleanUp(): Promise<void>
}

export interface FirewallDeps {
  readonly exec: Exec
  /** Where a text that is too long for an argument lies while nft reads it. */
  readonly directory?: string
}

/** Drives `nft`. Calls are carried out one after another, so that `verify` never meets a change half-way. */
export function createFirewall({ exec, directory = tmpdir() }: FirewallDeps): Firewall {
  let applied: { readonly rules: string; readonly listeners: Set<string> } | undefined
  let last: Promise<unknown> = Promise.resolve()
  const inOrder = <T>(work: () => Promise<T>): Promise<T> => {
    const result = last.then(work)
    last = result.catch(() => undefined)
    return result
  }

  // Not through nft's input: nft 0.9.8 opens /dev/stdin by name, which fails for the socket that Node gives a child there.
  const load = async (text: string): Promise<void> => {
    if (text.length <= maxArgumentBytes) {
      await exec('nft', [text])
      return
    }
    const aside = await mkdtemp(join(directory, 'faasd-nft-'))
    try {
      const path = join(aside, 'rules')
      await writeFile(path, text)
      await exec('nft', ['-f', path])
    } finally {
      await rm(aside, { recursive: true, force: true })
    }
  }

  const list = async (): Promise<TableListing> =>
    parseTableListing((await exec('nft', ['-s', '-n', 'list', 'table', family, tableName])).stdout)

  /** `commands` with each listener in braces: `add element` first, so that deleting what is not there is no error. */
  const changeElements = async (commands: readonly string[], listeners: readonly ListenerAddress[]) => {
    if (listeners.length === 0) return
    const elements = sortedElements(listeners).join(', ')
    try {
      await load(
        commands.map((command) => `${command} element ${table} listeners { ${elements} }\n`).join(''),
      )
    } catch (cause) {
      throw new FaasError('FIREWALL_NOT_IN_PLACE', `the listeners of table ${table} could not be changed`, {
        hint: 'another program removed or changed the table; faasd puts it back',
        cause,
      })
    }
  }

  return {
    apply: (state) =>
      inOrder(async () => {
        applied = undefined
        await load(renderFirewall(state))
        const listing = await list()
        const wanted = sortedElements(state.listeners)
        if (listing.listeners.join() !== wanted.join()) {
          throw new FaasError(
            'FIREWALL_NOT_IN_PLACE',
            `table ${table} has ${listing.listeners.length} listeners right after ${wanted.length} were applied`,
            { hint: 'another program changes the table; `nft monitor` shows which' },
          )
        }
        applied = { rules: listing.rules, listeners: new Set(wanted) }
      }),

    addListeners: (listeners) =>
      inOrder(async () => {
        await changeElements(['add'], listeners)
        for (const listener of listeners) applied?.listeners.add(elementOf(listener))
      }),

    removeListeners: (listeners) =>
      inOrder(async () => {
        await changeElements(['add', 'delete'], listeners)
        for (const listener of listeners) applied?.listeners.delete(elementOf(listener))
      }),

    verify: () =>
      inOrder(async () => {
        if (applied === undefined) return false
        try {
          const listing = await list()
          return (
            listing.rules === applied.rules &&
            listing.listeners.join() === [...applied.listeners].sort().join()
          )
        } catch (error) {
          if (error instanceof FaasError && error.code === 'COMMAND_FAILED') return false
          throw error
        }
      }),

    cleanUp: () =>
      inOrder(async () => {
        applied = undefined
        await load(`add table ${table}\ndelete table ${table}\n`)
      }),
  }
}
