/** The {@link Platform} that the API stands on: every call in the words of the rooms that do the work. */

import { join } from 'node:path'
import type { FunctionDetail, FunctionSettings, FunctionSummary, LogLine } from '../api/answers.ts'
import type { DeployOptions, Platform } from '../api/platform.ts'
import type { Deploy } from '../functions/deploy.ts'
import {
  commandOf,
  defaultMaxInstances,
  defaultTimeouts,
  type FunctionOptions,
  type FunctionRecord,
  type FunctionVersion,
  idleMsOf,
  type PortMapping,
  versionsOf,
} from '../functions/function.ts'
import type { Registry } from '../functions/registry.ts'
import type { Deployed } from '../functions/release.ts'
import { type Remove, recordOf } from '../functions/remove.ts'
import { parseVersionReference, type Rollback } from '../functions/rollback.ts'
import type { ImageConfig } from '../images/image.ts'
import type { ImageStore } from '../images/store.ts'
import { functionPort } from '../net/addresses.ts'
import type { PeerNetwork } from '../peers/network.ts'
import type { Requests } from '../requests/requests.ts'
import { defaultLimits } from '../runtime/container.ts'
import type { Usage } from '../runtime/usage.ts'
import type { FunctionLogs, LogEntry } from '../telemetry/function-log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { FunctionName } from '../values/names.ts'
import type { CheckHealth } from './health.ts'

export interface PlatformDeps {
  readonly version: string
  /** FAAS_ROOT. */
  readonly root: string
  readonly registry: Registry
  readonly images: ImageStore
  readonly requests: Requests
  readonly deploy: Deploy
  readonly rollback: Rollback
  readonly remove: Remove
  readonly peers: PeerNetwork
  readonly logs: FunctionLogs
  readonly metrics: Metrics
  readonly usageOf: (id: string) => Promise<Usage>
  readonly checkHealth: CheckHealth
}

export function createPlatform(deps: PlatformDeps): Platform {
  const { registry, requests, logs, peers, metrics } = deps

  const summarize = async (name: FunctionName, record: FunctionRecord): Promise<FunctionSummary> => {
    const stats = requests.stats(name)
    // One record that cannot be read must not hide the other functions.
    const image = await deps.images.load(record.image).catch(() => undefined)
    return {
      ip: record.address,
      rootfs: join(deps.root, 'images', name, 'rootfs'),
      cmd: image ? [...commandOf(image.config)] : [],
      contract: record.contract,
      image: record.image,
      created: record.created,
      instances: stats?.instances ?? 0,
      state: image ? stateOf(stats) : 'failing',
    }
  }

  return {
    version: deps.version,

    async deploy(name, body, options, signal, onProgress) {
      const deployed = await deps.deploy({
        name,
        body,
        options: toFunctionOptions(options),
        signal,
        onProgress,
        ...(options.pick === undefined ? {} : { pick: options.pick }),
        ...(options.contract === undefined ? {} : { contract: options.contract }),
        ...(options.ports === undefined ? {} : { ports: options.ports }),
      })
      return toAnswer(deployed)
    },

    async rollback(name, version, signal) {
      const reference = version === undefined ? undefined : parseVersionReference(version)
      return toAnswer(await deps.rollback(name, reference, { signal, onProgress: () => {} }))
    },

    async versions(name) {
      const record = recordOf(registry, name)
      const versions = versionsOf(record).map(async (version) => {
        const image = await deps.images.load(version.image).catch(() => undefined)
        return {
          version: version.version,
          current: version.version === record.version,
          deployed: version.deployed,
          rollback_of: version.rollbackOf ?? null,
          image: version.image,
          cmd: image ? [...commandOf(image.config)] : [],
          contract: version.contract,
          ...settingsOf(version, image?.config),
        }
      })
      return Promise.all(versions)
    },

    async list() {
      const functions = [...registry.content.functions].sort(([a], [b]) => (a < b ? -1 : 1))
      const entries: [FunctionName, FunctionSummary][] = []
      for (const [name, record] of functions) entries.push([name, await summarize(name, record)])
      return new Map(entries)
    },

    async describe(name): Promise<FunctionDetail> {
      const record = recordOf(registry, name)
      const { config } = await deps.images.load(record.image)
      return {
        ...(await summarize(name, record)),
        name,
        url: urlOf(name, record.ports),
        version: record.version,
        updated: record.deployed,
        working_dir: config.workingDir || '/',
        user: config.user || '0',
        ...settingsOf(record, config),
      }
    },

    address: async (name) => ({ name, ip: recordOf(registry, name).address }),

    async remove(name) {
      const { address, warnings } = await deps.remove(name)
      logs.forget(name)
      return { name, ip: address, ...(warnings.length === 0 ? {} : { warnings: [...warnings] }) }
    },

    async logs(name, { follow, tail }, signal) {
      recordOf(registry, name)
      return readLogs(logs, name, follow, tail, signal)
    },

    async stats(name) {
      recordOf(registry, name)
      const { accepted, passed, refused, failed, instances, standbys, relayed, ids } =
        requests.stats(name) ?? noStats
      const usages = await Promise.all(ids.map(deps.usageOf))
      return {
        name,
        instances,
        standbys,
        path: relayed ? 'relay' : 'kernel',
        connections: { accepted, passed, refused, failed },
        memory_bytes: usages.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0),
        cpu_ms: Math.round(usages.reduce((sum, { cpuMs }) => sum + cpuMs, 0)),
      }
    },

    vpn: {
      create: (name, publicKey) => peers.create(name, publicKey),
      list: () => peers.list(),
      remove: (name) => peers.remove(name),
      invite: (name) => peers.invite(name),
    },

    health: deps.checkHealth,
    async metrics() {
      metrics.functionsDeployed(registry.content.functions.size)
      return metrics.render()
    },
  }
}

const toAnswer = ({ cmd, warnings, ...rest }: Deployed) => ({
  ...rest,
  cmd: [...cmd],
  ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
})

/** Of variables only the names; those of the image are missing where it cannot be read. */
function settingsOf(version: FunctionVersion, config: ImageConfig | undefined): FunctionSettings {
  const { options, ports } = version
  const { limits, timeouts, maxInstances, minInstances, standby, reuse, writable, health, env } = options
  const variables = [...(config?.env ?? []), ...env].map((variable) =>
    variable.slice(0, variable.indexOf('=')),
  )
  return {
    env: [...new Set(variables)],
    limits: {
      memory_bytes: limits.memoryBytes,
      cpu_millis: limits.cpuMillis,
      pids: limits.pids,
      tmp_bytes: limits.tmpBytes,
    },
    timeouts: {
      connect_ms: timeouts.connectMs,
      total_ms: timeouts.totalMs,
      queue_ms: timeouts.queueMs,
      pause_ms: timeouts.pauseMs,
      idle_ms: idleMsOf(version),
    },
    ports: [...ports],
    max_instances: maxInstances,
    min_instances: minInstances,
    standby: standby ?? 'demand',
    reuse: reuse ?? false,
    writable,
    health: health ?? null,
  }
}

/** By port 80 where it is one of the function's, else by its first. */
const urlOf = (name: FunctionName, ports: readonly PortMapping[]): string => {
  const [first] = ports
  const isUsual = first === undefined || ports.some(({ port }) => port === functionPort)
  return isUsual ? `http://${name}.faas/` : `http://${name}.faas:${first.port}/`
}

const noStats = {
  accepted: 0,
  passed: 0,
  refused: 0,
  failed: 0,
  instances: 0,
  standbys: 0,
  relayed: false,
  ids: [] as readonly string[],
}

function stateOf(stats: ReturnType<Requests['stats']>): FunctionSummary['state'] {
  if (!stats) return 'starting'
  if (stats.instances > 0) return stats.frozen ? 'paused' : 'running'
  return stats.failure === undefined ? 'idle' : 'failing'
}

/** What a deploy leaves out gets the default, also on a redeploy. */
function toFunctionOptions({
  limits,
  timeouts,
  maxInstances,
  minInstances,
  standby,
  reuse,
  writable,
  health,
  env,
}: DeployOptions): FunctionOptions {
  return {
    limits: { ...defaultLimits, ...limits },
    timeouts: { ...defaultTimeouts, ...timeouts },
    maxInstances: maxInstances ?? defaultMaxInstances,
    minInstances: minInstances ?? 0,
    ...(standby === undefined ? {} : { standby }),
    ...(reuse === undefined ? {} : { reuse }),
    writable: writable ?? false,
    ...(health === undefined ? {} : { health }),
    env: Object.entries(env ?? {}).map(([key, value]) => `${key}=${value}`),
  }
}

/** A reader that does not keep up loses the oldest of what it has not read, not the daemon its memory. */
const maxUnread = 10_000

async function* readLogs(
  logs: FunctionLogs,
  name: FunctionName,
  follow: boolean,
  tail: number,
  signal: AbortSignal,
): AsyncGenerator<LogLine> {
  const unread: LogEntry[] = [...logs.tail(name, tail)]
  let wake = (): void => {}
  using _following = follow
    ? logs.follow(name, (entry) => {
        if (unread.length >= maxUnread) unread.shift()
        unread.push(entry)
        wake()
      })
    : undefined
  const onAbort = (): void => wake()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    for (;;) {
      for (let entry = unread.shift(); entry; entry = unread.shift()) {
        yield { ...entry, time: entry.time.toISOString() }
      }
      if (!follow || signal.aborted) return
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
