/**
 * The whole platform in a lab, as a user has it: `faas up` in the server machine, functions deployed by curl, devices joined by an
 * invitation. Needs root and the real programs ({@link skipReason} says what is missing). Everything goes with the lab.
 */
import { dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { createLab, type Lab } from '../machines/lab.ts'
import type { Machine, RunningProgram } from '../machines/machine.ts'
import { missingFor } from '../net/namespace.ts'
import { findViolations } from './invariants.ts'

export type RuntimeName = 'runc' | 'crun'
/** Tests go through all that matters with each; what does not hang on the runtime is done with the first. */
export const runtimes: readonly RuntimeName[] = ['runc', 'crun']

/** Why the platform cannot run here, as `skip` of a test takes it. */
export function skipReason(runtime: RuntimeName): string | false {
  return missingFor(['ip', 'nft', 'wg', 'wg-quick', 'ss', 'dig', 'curl', runtime]) ?? false
}

export interface PlatformOptions {
  readonly runtime: RuntimeName
  /** Default 1. */
  readonly devices?: number
  /** More environment of `faas up`. */
  readonly env?: Readonly<Record<string, string>>
}

export interface ApiAnswer {
  readonly status: number
  /** The JSON that was answered, or the text where it is none. */
  readonly body: unknown
}

export interface Platform extends AsyncDisposable {
  readonly lab: Lab
  readonly server: Machine
  readonly runtime: RuntimeName
  /** All that `faas up` has printed, over all its starts. */
  log(): string
  /** How often the log says that faasd serves. */
  starts(): number
  /** Runs `faas up` and waits until faasd serves. */
  up(): Promise<void>
  /** Ends `faas up` by SIGTERM and waits; answers its exit code. */
  down(): Promise<number>
  /** The guide's `curl -X POST … /api/new`. `query` without its question mark. */
  deploy(name: string, archive: string, query?: string): Promise<ApiAnswer>
  /** Deploys what must succeed, and answers the function's address. */
  deployed(name: string, archive: string, query?: string): Promise<string>
  remove(name: string): Promise<ApiAnswer>
  /** `METHOD /api/…` by curl in the server machine. */
  api(method: string, path: string, ...curl: string[]): Promise<ApiAnswer>
  /** Joins a device of the lab by an invitation; answers its address in the tunnel. */
  join(device: Machine, name: string): Promise<string>
  /** `GET` of a URL in a machine, the first device by default. Throws unless 200 is answered. */
  get(url: string, machine?: Machine): Promise<string>
  /** What `faas logs` tells of a function. */
  logsOf(name: string): Promise<string>
  /** Process id of a program in the server machine, by a pattern of its command line. */
  pidOf(pattern: string): Promise<number>
  /** Waits until what exists is what the registry says, no more and no less (hardening §4.2, I1–I10). */
  invariants(): Promise<void>
  /** A subtest of this platform; when it fails, the end of the log is printed with it. */
  step(t: TestContext, name: string, body: (t: TestContext) => Promise<void>): Promise<void>
}

const startTimeoutMs = 60_000
const stopTimeoutMs = 60_000
const started = '[init] faasd started successfully'
/** CoreDNS logs each query: too many to read. */
const dnsQuery = /^\[INFO\] \[/
const checkout = dirname(dirname(import.meta.dirname))

/** Makes a lab and runs `faas up` in its server. */
export async function startPlatform(options: PlatformOptions): Promise<Platform> {
  const lab = await createLab({ devices: options.devices ?? 1 })
  try {
    const platform = platformIn(lab, options)
    await platform.up()
    return platform
  } catch (error) {
    await lab[Symbol.asyncDispose]()
    throw error
  }
}

function platformIn(lab: Lab, { runtime, env = {} }: PlatformOptions): Platform {
  const { server } = lab
  const environment = { FAAS_RUNTIME: runtime, FAAS_VPN_ENDPOINT: server.ipv4, ...env }
  const runs: RunningProgram[] = []
  const log = () => runs.map((run) => run.output()).join('')
  const starts = () => log().split(started).length - 1

  const api: Platform['api'] = async (method, path, ...curl) => {
    const args = ['-sS', '--max-time', '120', '-X', method, '-w', '\n%{http_code}', ...curl]
    const { stdout } = await server.exec(['curl', ...args, `http://localhost:8080${path}`], {
      timeoutMs: 130_000,
    })
    const cut = stdout.lastIndexOf('\n')
    return { status: Number(stdout.slice(cut + 1)), body: jsonOrText(stdout.slice(0, cut)) }
  }

  const platform: Platform = {
    lab,
    server,
    runtime,
    log,
    starts,
    api,
    async up() {
      const before = starts()
      const run = server.spawn(['faas', 'up'], { env: environment, cwd: checkout })
      runs.push(run)
      let ended: number | undefined
      void run.exited.then((code) => (ended = code))
      await eventually(
        '`faas up` serves',
        () => {
          if (starts() > before || ended !== undefined) return
          throw new Error(`it printed:\n${run.output()}`)
        },
        { timeoutMs: startTimeoutMs },
      )
      if (ended !== undefined) throw new Error(`\`faas up\` ended with exit code ${ended}:\n${run.output()}`)
    },
    async down() {
      const run = runs.at(-1)
      run?.kill('SIGTERM')
      const late = AbortSignal.timeout(stopTimeoutMs)
      return Promise.race([
        run?.exited ?? Promise.resolve(0),
        new Promise<never>((_, reject) => {
          late.addEventListener('abort', () => reject(new Error(`\`faas up\` does not stop:\n${log()}`)))
        }),
      ])
    },
    deploy: (name, archive, query) =>
      api(
        'POST',
        `/api/new${query === undefined ? '' : `?${query}`}`,
        ...['-H', `X-Image-Name: ${name}`, '--data-binary', `@${archive}`],
      ),
    async deployed(name, archive, query) {
      const { status, body } = await platform.deploy(name, archive, query)
      if (status !== 200) throw new Error(`deploy of ${name}: ${status} ${JSON.stringify(body)}`)
      return (body as { ip: string }).ip
    },
    remove: (name) => api('DELETE', `/api/functions/${name}`),
    async join(device, name) {
      const code = (await server.exec(['faas', 'vpn', 'invite', name])).stdout.trim()
      await device.exec(['faas', 'vpn', 'connect', code], { timeoutMs: 60_000 })
      const list = (await api('GET', '/api/vpn/list')).body as { name: string; ipv6: string }[]
      const joined = list.find((peer) => peer.name === name)
      if (joined === undefined) throw new Error(`${name} is not in ${JSON.stringify(list)}`)
      return joined.ipv6
    },
    async get(url, machine = lab.device) {
      const args = ['-sS', '--fail-with-body', '--max-time', '60', url]
      return (await machine.exec(['curl', ...args], { timeoutMs: 70_000 })).stdout
    },
    logsOf: async (name) => (await server.exec(['faas', 'logs', name, '--tail', '1000'])).stdout,
    async pidOf(pattern) {
      const { stdout } = await server.exec(['pgrep', '-o', '-f', pattern])
      return Number(stdout.trim())
    },
    async invariants() {
      await eventually(
        'everything is as the registry says',
        async () => {
          const violations = await findViolations(platform)
          if (violations.length > 0) throw new Error(violations.join('\n'))
        },
        { timeoutMs: 20_000, intervalMs: 250 },
      )
    },
    async step(t, name, body) {
      await t.test(name, async (context) => {
        try {
          await body(context)
        } catch (error) {
          const lines = log()
            .split('\n')
            .filter((line) => !dnsQuery.test(line))
          context.diagnostic(`the end of the log:\n${lines.slice(-40).join('\n')}`)
          throw error
        }
      })
    },
    async [Symbol.asyncDispose]() {
      await using _lab = lab
      for (const run of runs) await run[Symbol.asyncDispose]()
    },
  }
  return platform
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** The code of an answer that must be an error. */
export const errorCodeOf = ({ body }: ApiAnswer): string | undefined =>
  (body as { error?: { code?: string } } | null)?.error?.code

export const errorTextOf = ({ body }: ApiAnswer): string => {
  const { message = '', hint = '' } = (body as { error?: { message?: string; hint?: string } }).error ?? {}
  return `${message} ${hint}`
}

/** A file of the server machine, seen from outside: `faasd/registry.json`, `upper/etc/wireguard/wg0.conf`. */
export const pathIn = (machine: Machine, ...parts: string[]): string => join(machine.directory, ...parts)
