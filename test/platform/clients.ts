/** Runs client.ts in a machine. */
import type { Machine } from '../machines/machine.ts'
import type { LoopResult, Outcome } from './client.ts'

const program = ['node', new URL('client.ts', import.meta.url).pathname]

/** `count` requests at once, each on a connection of its own. HOST is a name or an address. */
export async function requestMany(
  machine: Machine,
  { host, path = '/', count = 1, timeoutMs = 60_000 }: RequestOptions,
): Promise<readonly Outcome[]> {
  const argv = [...program, 'many', String(count), host, path, String(timeoutMs)]
  const { stdout } = await machine.exec(argv, { timeoutMs: timeoutMs + 30_000 })
  return JSON.parse(stdout) as Outcome[]
}

export interface RequestOptions {
  readonly host: string
  readonly path?: string
  readonly count?: number
  readonly timeoutMs?: number
}

export async function requestOne(machine: Machine, options: RequestOptions): Promise<Outcome> {
  const [outcome] = await requestMany(machine, options)
  if (outcome === undefined) throw new Error('no outcome')
  return outcome
}

export interface RequestLoop extends AsyncDisposable {
  /** Ends the loop after the requests that are under way. */
  stop(): Promise<LoopResult>
}

/** Requests without a pause until stopped. */
export function startRequestLoop(machine: Machine, host: string, path: string, parallel = 2): RequestLoop {
  const run = machine.spawn([...program, 'loop', String(parallel), host, path], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  return {
    async stop() {
      run.child.stdin?.end()
      const code = await run.exited
      if (code !== 0) throw new Error(`the client failed: ${run.output()}`)
      return JSON.parse(run.output()) as LoopResult
    },
    [Symbol.asyncDispose]: () => run[Symbol.asyncDispose](),
  }
}
