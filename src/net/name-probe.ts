/** Asks the platform's own name server, as a device would, whether a name is served yet. Failure: DNS_TIMEOUT. */
import { Resolver } from 'node:dns/promises'
import type { Clock } from '../host/clock.ts'
import { FaasError } from '../values/errors.ts'
import { type Ipv6, parseIpv6 } from '../values/ipv6.ts'
import type { FunctionName } from '../values/names.ts'
import { dnsPort, serverAddress } from './addresses.ts'
import { zoneDomain } from './dns.ts'

/** One question is given up after this long: a name server on the same machine answers at once or not at all. */
const questionTimeoutMs = 250
const pauseMs = 20

export interface NameProbe {
  /**
   * Resolves when `name` is served with exactly `address`, or, for undefined, when it is no longer known. Throws DNS_TIMEOUT
   * after `timeoutMs`.
   */
  waitForAddress(name: FunctionName, address: Ipv6 | undefined, timeoutMs: number): Promise<void>
  /** The serial of the zone that is served, or undefined when nobody answers. */
  servedSerial(): Promise<number | undefined>
}

export interface NameProbeDeps {
  readonly clock: Clock
  /** Default: the server's address. */
  readonly server?: string
  /** Default 53. */
  readonly port?: number
}

/** What an answer says, in the words of an error message. */
type Answer = { readonly addresses: readonly Ipv6[] } | { readonly failure: string }

const notThere: ReadonlySet<string> = new Set(['ENOTFOUND', 'ENODATA'])

export function createNameProbe({ clock, server = serverAddress, port = dnsPort }: NameProbeDeps): NameProbe {
  const createResolver = (): Resolver => {
    const resolver = new Resolver({ timeout: questionTimeoutMs, tries: 1 })
    resolver.setServers([`[${server}]:${port}`])
    return resolver
  }

  const ask = async (name: FunctionName): Promise<Answer> => {
    try {
      const answers = await createResolver().resolve6(`${name}.${zoneDomain}`)
      return { addresses: answers.map(parseIpv6) }
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? String(error)
      return notThere.has(code) ? { addresses: [] } : { failure: code }
    }
  }

  return {
    waitForAddress: async (name, address, timeoutMs) => {
      const wanted = address ?? ''
      const deadline = clock.monotonicMs() + timeoutMs
      for (;;) {
        const answer = await ask(name)
        if ('addresses' in answer && answer.addresses.join() === wanted) return
        if (clock.monotonicMs() >= deadline) {
          const got = 'failure' in answer ? answer.failure : answer.addresses.join(', ') || 'no address'
          throw new FaasError(
            'DNS_TIMEOUT',
            `${name}.${zoneDomain} should be ${address ?? 'unknown'} after ${timeoutMs} ms, the name server says ${got}`,
            { hint: 'is CoreDNS running? `faas status` and its log tell' },
          )
        }
        await clock.sleep(pauseMs)
      }
    },
    servedSerial: async () => {
      try {
        return (await createResolver().resolveSoa(zoneDomain)).serial
      } catch {
        return undefined
      }
    },
  }
}
