/**
 * A server with the whole platform on one runtime, and a device that has joined: where a real image is deployed by
 * `faas new` and called by its name through the tunnel. One place serves a whole file; each case has its own function.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Deployed, FunctionDetail, FunctionStats } from '../../src/api/answers.ts'
import { eventually } from '../../src/host/eventually.ts'
import type { ExecResult } from '../../src/host/exec.ts'
import { createLab, type Lab } from '../machines/lab.ts'
import { startPlatform } from '../machines/platform.ts'
import { missingFor } from '../net/namespace.ts'

export const runtimes = ['runc', 'crun'] as const
export type RuntimeName = (typeof runtimes)[number]

/** Why a runtime cannot be tested here, or undefined. */
export const missingRuntime = (runtime: RuntimeName): string | undefined =>
  missingFor(['unshare', 'nsenter', 'ip', 'nft', 'wg', 'curl', 'mmdebstrap', runtime])

/** The device's address in the network: it is the only one that joins. */
export const deviceAddress = 'fd00:faa5:0:100::a'

/** How long anything may take that takes a second on a quiet machine. */
const patienceMs = 60_000
const anyCode = Array.from({ length: 256 }, (_, code) => code)

export interface Place extends AsyncDisposable {
  readonly lab: Lab
  readonly runtime: RuntimeName
  /** `faas new NAME ARCHIVE OPTION…`. Throws when it fails. */
  deploy(name: string, archive: string, ...options: string[]): Promise<Deployed>
  /** The same by the API, for cases that are about something else; `query` as in `POST /api/new`. */
  post(name: string, archive: string, query: readonly (readonly [string, string])[]): Promise<Deployed>
  /** `faas new` where it must fail: what it says, with hint and code. */
  deployFails(name: string, archive: string, ...options: string[]): Promise<string>
  /** The body that the function answers on port 80, seen from the device. Throws when it answers with an error. */
  get(name: string, path?: string): Promise<string>
  /** Calls once and waits at most `seconds`: curl's exit code and what came. */
  tryGet(name: string, seconds?: number): Promise<ExecResult>
  /** Sends `text` from the device to a port of the function and answers the first `lines` that come back. */
  talk(name: string, port: number, text: string, lines?: number): Promise<string>
  describe(name: string): Promise<FunctionDetail>
  /** How connections reach it. */
  pathOf(name: string): Promise<FunctionStats['path']>
  /** Waits until `faas describe` names one of these states. */
  reaches(name: string, ...states: FunctionDetail['state'][]): Promise<FunctionDetail>
  /** What the function has printed, platform's words included. */
  logs(name: string): Promise<string>
  /** The init of the function's only instance, as the server numbers it. */
  initOf(name: string): Promise<number>
  /** Removes the function and waits until no container of it is left. Nothing happens when there is none. */
  remove(name: string): Promise<void>
}

export async function createPlace(runtime: RuntimeName): Promise<Place> {
  await using making = new AsyncDisposableStack()
  const lab = making.use(await createLab({ devices: 1 }))
  const { server, device } = lab
  making.use(await startPlatform(server, { env: { FAAS_RUNTIME: runtime } }))
  const code = (await server.sh('faas vpn invite laptop')).trim()
  await device.exec(['faas', 'vpn', 'connect', '--write-resolv-conf', code], { timeoutMs: patienceMs })

  const run = (argv: readonly string[], okCodes: readonly number[] = [0]) =>
    server.exec(argv, { okCodes, timeoutMs: 2 * patienceMs })
  const newFunction = (name: string, archive: string, options: readonly string[], codes: readonly number[]) =>
    run(['faas', '--json', 'new', name, archive, ...options], codes)
  // By curl, because it is polled: the `faas` program takes half a second of CPU time to start.
  const api = async (method: 'GET' | 'POST' | 'DELETE', path: string, ...more: string[]): Promise<string> => {
    const curl = ['curl', '--silent', '--show-error', '--request', method, '--max-time', '90', ...more]
    return (await run([...curl, '--unix-socket', '/run/faasd/api.sock', `http://localhost${path}`])).stdout
  }
  const describe = async (name: string): Promise<FunctionDetail> =>
    JSON.parse(await api('GET', `/api/functions/${name}`)) as FunctionDetail
  const containers = async (name: string): Promise<readonly { readonly pid: number }[]> => {
    const { stdout } = await run([runtime, 'list', '--format', 'json'])
    const all = (JSON.parse(stdout) ?? []) as { readonly id: string; readonly pid: number }[]
    return all.filter(({ id }) => id.startsWith(`faas-${name}-`))
  }
  const get = async (name: string, path = '/') => {
    const curl = [
      'curl',
      '--silent',
      '--show-error',
      '--fail',
      '--max-time',
      '30',
      `http://${name}.faas${path}`,
    ]
    return (await device.exec(curl, { timeoutMs: patienceMs })).stdout
  }

  const remains = making.move()
  return {
    lab,
    runtime,
    deploy: async (name, archive, ...options) =>
      JSON.parse((await newFunction(name, archive, options, [0])).stdout) as Deployed,
    async post(name, archive, query) {
      const path = `/api/new?${query.map((pair) => pair.map(encodeURIComponent).join('=')).join('&')}`
      const header = `X-Image-Name: ${name}`
      return JSON.parse(
        await api('POST', path, '--header', header, '--data-binary', `@${archive}`),
      ) as Deployed
    },
    async deployFails(name, archive, ...options) {
      const { code: exitCode, stderr, stdout } = await newFunction(name, archive, options, anyCode)
      if (exitCode === 0) throw new Error(`the deploy of ${name} should have failed: ${stdout}`)
      return stderr
    },
    get,
    tryGet: (name, seconds = 5) =>
      device.exec(['curl', '--silent', '--max-time', String(seconds), `http://${name}.faas/`], {
        okCodes: anyCode,
        timeoutMs: patienceMs,
      }),
    async talk(name, port, text, lines = 1) {
      const script = `exec 3<>/dev/tcp/"$1"/"$2"; printf %b "$3" >&3; head -n "$4" <&3`
      const argv = ['timeout', '30', 'bash', '-euc', script, 'bash', `${name}.faas`, String(port), text]
      return (await device.exec([...argv, String(lines)], { timeoutMs: patienceMs })).stdout
    },
    describe,
    pathOf: async (name) =>
      (JSON.parse(await api('GET', `/api/functions/${name}/stats`)) as FunctionStats).path,
    reaches: (name, ...states) =>
      eventually(
        `${name} is ${states.join(' or ')}`,
        async () => {
          const detail = await describe(name)
          if (!states.includes(detail.state)) throw new Error(`it is ${detail.state}`)
          return detail
        },
        { timeoutMs: patienceMs, intervalMs: 300 },
      ),
    async logs(name) {
      const { stdout } = await run(['faas', 'logs', '--tail', '1000', name])
      return stdout
    },
    initOf: (name) =>
      eventually(`${name} has one instance`, async () => {
        const [first, ...more] = await containers(name)
        if (first === undefined || more.length > 0) throw new Error(`it has ${more.length}`)
        return first.pid
      }),
    async remove(name) {
      await api('DELETE', `/api/functions/${name}`)
      await eventually(
        `the instances of ${name} are gone`,
        async () => {
          const left = await containers(name)
          if (left.length > 0) throw new Error(`${left.length} are left`)
        },
        { timeoutMs: patienceMs, intervalMs: 200 },
      )
    },
    [Symbol.asyncDispose]: () => remains.disposeAsync(),
  }
}

export const program = (name: string): string => join(import.meta.dirname, 'programs', name)
export const readProgram = (name: string): Promise<string> => readFile(program(name), 'utf8')
