/** A Platform for tests: functions and devices in memory; the archive is only counted. Replace any method by `overrides`. */
import { FaasError } from '../values/errors.ts'
import { type FunctionName, type PeerName, parseFunctionName } from '../values/names.ts'
import type { FunctionSettings, FunctionSummary, LogLine, PeerEntry } from './answers.ts'
import type { DeployOptions, Platform } from './platform.ts'

export interface FakePlatform extends Platform {
  /** Bytes of each archive that was read to its end, by name. */
  readonly received: Map<FunctionName, number>
  readonly options: Map<FunctionName, DeployOptions>
}

export function createFakePlatform(overrides: Partial<Platform> = {}): FakePlatform {
  const functions = new Map<FunctionName, FunctionSummary>()
  const peers = new Map<PeerName, PeerEntry>()
  const received = new Map<FunctionName, number>()
  const options = new Map<FunctionName, DeployOptions>()
  const versions = new Map<FunctionName, number>()

  const find = (name: FunctionName): FunctionSummary => {
    const found = functions.get(name)
    if (!found) throw new FaasError('FUNCTION_UNKNOWN', `there is no function ${JSON.stringify(name)}`)
    return found
  }

  return {
    version: '0.0.0-test',
    received,
    options,

    async deploy(name, body, asked, _signal, onProgress) {
      onProgress({ step: 'receive', message: 'reading the archive' })
      let bytes = 0
      for await (const chunk of body) bytes += chunk.length
      if (bytes === 0) throw new FaasError('ARCHIVE_INVALID', 'the archive is empty')
      received.set(name, bytes)
      options.set(name, asked)
      // As with the real one, a redeploy keeps the address.
      const ip = functions.get(name)?.ip ?? `fd00:faa5:1::${(10 + functions.size).toString(16)}`
      const cmd = ['python3', '/app/handler.py']
      functions.set(name, {
        ip,
        rootfs: `/var/lib/faasd/images/${name}/rootfs`,
        cmd,
        contract: 'fd',
        image: `sha256:${'0'.repeat(64)}`,
        created: '2026-01-01T00:00:00.000Z',
        instances: 0,
        state: 'idle',
      })
      const version = (versions.get(name) ?? 0) + 1
      versions.set(name, version)
      // Not the order of the guide: the route puts it right.
      return { version, contract: 'fd', cmd, ip, name, warnings: [] }
    },
    async rollback(name, reference) {
      const { ip, cmd } = find(name)
      const last = versions.get(name) ?? 1
      const wanted = Number(reference ?? last - 1)
      if (wanted < 1 || wanted > last)
        throw new FaasError('VERSION_UNKNOWN', `${name} has no version ${wanted}`)
      versions.set(name, last + 1)
      return { name, ip, cmd, contract: 'fd', version: last + 1 }
    },
    async versions(name) {
      const { image, cmd, contract } = find(name)
      const last = versions.get(name) ?? 1
      return Array.from({ length: last }, (_, index) => ({
        ...settings,
        version: last - index,
        current: index === 0,
        deployed: '2026-01-01T00:00:00.000Z',
        rollback_of: null,
        image,
        cmd,
        contract,
      }))
    },

    list: async () => functions,
    address: async (name) => ({ name, ip: find(name).ip }),
    async remove(name) {
      const { ip } = find(name)
      functions.delete(name)
      return { name, ip }
    },
    async describe(name) {
      return {
        ...find(name),
        name,
        url: `http://${name}.faas/`,
        updated: '2026-01-01T00:00:00.000Z',
        working_dir: '/',
        user: '0:0',
        version: versions.get(name) ?? 1,
        ...settings,
      }
    },
    async logs(name, { follow, tail }, signal) {
      find(name)
      const line = (text: string): LogLine => ({
        time: '2026-01-01T00:00:00.000Z',
        function: name,
        instance: '1a2b',
        stream: 'stdout',
        text,
      })
      return (async function* () {
        for (const text of ['one', 'two', 'three'].slice(-tail)) yield line(text)
        if (follow && !signal.aborted)
          await new Promise((resolve) => signal.addEventListener('abort', resolve))
      })()
    },
    async stats(name) {
      find(name)
      const connections = { accepted: 3, passed: 2, refused: 1, failed: 0 }
      return {
        name,
        instances: 0,
        standbys: 0,
        path: 'kernel',
        connections,
        memory_bytes: null,
        cpu_ms: null,
      }
    },

    vpn: {
      async create(name) {
        if (peers.has(name)) throw new FaasError('PEER_EXISTS', `there is a device ${name} already`)
        const ipv6 = `fd00:faa5:0:100::${(10 + peers.size).toString(16)}`
        peers.set(name, { name, ipv6, created: '2026-01-01T00:00:00.000Z', status: 'never' })
        return {
          ipv6,
          server_public_key: 'c2VydmVyLXB1YmxpYy1rZXktZm9yLXRlc3RzLW9ubHkhIQ==',
          endpoint: '203.0.113.10:51820',
        }
      },
      list: async () => [...peers.values()],
      async remove(name) {
        if (!peers.delete(name)) throw new FaasError('PEER_UNKNOWN', `there is no device ${name}`)
      },
      invite: async (name) => ({ code: `faas-${name}`, expires: '2026-01-01T01:00:00.000Z' }),
    },

    health: async () => ({ status: 'ok', checks: { dns: { status: 'ok', message: 'answers' } } }),
    metrics: async () => '# TYPE faasd_up gauge\nfaasd_up 1\n',
    ...overrides,
  }
}

const settings: FunctionSettings = {
  env: ['PATH'],
  limits: { memory_bytes: 536_870_912, cpu_millis: 1000, pids: 128, tmp_bytes: 67_108_864 },
  timeouts: { connect_ms: 5000, total_ms: 30_000, queue_ms: 5000, pause_ms: 2000, idle_ms: 60_000 },
  ports: [{ port: 80, target: 8080 }],
  max_instances: 64,
  min_instances: 0,
  writable: false,
  standby: 'demand',
  reuse: false,
  health: null,
}

export const testName = (text: string): FunctionName => parseFunctionName(text)
