/** What works and what does not, as `GET /api/health` and `faas status` say it. Every check looks at the real thing. */
import { statfs } from 'node:fs/promises'
import type { Health } from '../api/answers.ts'
import type { NameProbe } from '../net/name-probe.ts'
import type { Wireguard } from '../net/wireguard.ts'
import type { OciRuntime } from '../runtime/oci-runtime.ts'
import { toFaasError } from '../values/errors.ts'
import type { Guard } from './guard.ts'

export interface HealthDeps {
  readonly wireguard: Pick<Wireguard, 'dump' | 'kind'>
  readonly names: Pick<NameProbe, 'servedSerial'>
  readonly runtime: Pick<OciRuntime, 'version'>
  readonly guard: Pick<Guard, 'isGateOpen' | 'troubles'>
  /** FAAS_ROOT: on its file system images are stored. */
  readonly root: string
}

export type CheckHealth = () => Promise<Health>

type Status = Health['status']
type Verdict = Health['checks'][string]

const lowSpaceRatio = 0.05
const severity: readonly Status[] = ['ok', 'degraded', 'failing']

export function createHealthCheck({ wireguard, names, runtime, guard, root }: HealthDeps): CheckHealth {
  const checks: Readonly<Record<string, () => Promise<Verdict>>> = {
    async wireguard() {
      const kind = await wireguard.kind()
      if (!kind) return verdict('failing', 'wg0 is not there')
      const { peers } = await wireguard.dump()
      return verdict('ok', `wg0 is up (${kind}), ${peers.length} peers`)
    },
    async dns() {
      const serial = await names.servedSerial()
      if (serial === undefined) return verdict('degraded', 'CoreDNS does not answer: names do not resolve')
      return verdict('ok', `the zone faas. is served, serial ${serial}`)
    },
    runtime: async () => verdict('ok', await runtime.version()),
    async firewall() {
      if (guard.isGateOpen()) return verdict('ok', 'the table inet faasd is in place')
      return verdict('failing', 'the rule for passed sockets is not in place: no connection is passed')
    },
    async state() {
      const troubles = guard.troubles()
      return troubles.length === 0
        ? verdict('ok', 'as the registry says')
        : verdict('degraded', troubles.join('; '))
    },
    async disk() {
      const { bavail, blocks, bsize } = await statfs(root)
      const message = `${Math.round((bavail * bsize) / 2 ** 20)} MiB free for images`
      return verdict(bavail < blocks * lowSpaceRatio ? 'degraded' : 'ok', message)
    },
  }
  return async () => {
    const run = async ([name, check]: [string, () => Promise<Verdict>]): Promise<[string, Verdict]> => [
      name,
      await check().catch((error: unknown) => verdict('failing', toFaasError(error).message)),
    ]
    const results = await Promise.all(Object.entries(checks).map(run))
    const worst = Math.max(...results.map(([, { status }]) => severity.indexOf(status)))
    return { status: severity[worst] ?? 'failing', checks: Object.fromEntries(results) }
  }
}

const verdict = (status: Status, message: string): Verdict => ({ status, message })
