/**
 * The whole platform in a machine: `faas up`, in the background, as an operator runs it. For tests and the demo.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../../src/host/eventually.ts'
import type { Machine } from './machine.ts'

export interface Platform extends AsyncDisposable {
  /** The process of `faas up`, as the machine numbers it. */
  readonly pid: number
  /** What it has printed so far. */
  log(): Promise<string>
  /** Ends it by `faas down`, and answers when it is gone. Safe to repeat. */
  stop(): Promise<void>
}

export const startedLine = '[init] faasd started successfully'

/** Starts `faas up` and answers when it says that it serves; throws with its last words when it ends before. */
export async function startPlatform(
  machine: Machine,
  options: { readonly env?: Readonly<Record<string, string>>; readonly timeoutMs?: number } = {},
): Promise<Platform> {
  const logPath = join(machine.directory, 'faas-up.log')
  const pidPath = join(machine.directory, 'faas-up.pid')
  // setsid: it lives as long as the machine, not as long as whoever started it.
  await machine.exec(
    [
      'setsid',
      '--fork',
      'sh',
      '-c',
      'echo $$ >"$1.new"; mv "$1.new" "$1"; exec faas up >"$2" 2>&1 </dev/null',
      'sh',
      pidPath,
      logPath,
    ],
    { env: { FAAS_VPN_ENDPOINT: machine.ipv4, ...options.env } },
  )
  const log = () => readFile(logPath, 'utf8').catch(() => '')
  const pid = await eventually('faas up has started', async () => Number(await readFile(pidPath, 'utf8')))
  const runs = async () => (await machine.exec(['kill', '-0', String(pid)], { okCodes: [0, 1] })).code === 0
  const serves = async () => {
    if ((await log()).includes(startedLine)) return true
    if (!(await runs())) return false
    throw new Error('it is still starting')
  }
  const stop = async () => {
    if (!(await runs())) return
    await machine.exec(['faas', 'down'], { okCodes: [0, 1, 2, 3, 4, 5] })
    await eventually(
      'faas up has ended',
      async () => {
        if (await runs()) throw new Error(`process ${pid} is there`)
      },
      { timeoutMs: 30_000 },
    )
  }
  const lastWords = async () => (await log()).trim().split('\n').slice(-10).join('\n')
  const started = await eventually('faas up serves', serves, {
    timeoutMs: options.timeoutMs ?? 30_000,
  }).catch(async (error: unknown) => {
    throw new Error(`faas up does not serve; its last words: ${await lastWords()}`, { cause: error })
  })
  if (!started) throw new Error(`faas up has ended: ${await lastWords()}`)
  return { pid, log, stop, [Symbol.asyncDispose]: stop }
}
