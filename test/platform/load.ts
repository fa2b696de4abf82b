/**
 * Steady requests in a machine: two at a time, each on a connection of its own, until it is stopped. `node load.ts
 * URL` prints what it counted as JSON at SIGTERM; tests use {@link startLoad}.
 */
import { get } from 'node:http'
import type { Machine } from '../machines/machine.ts'

export interface LoadReport {
  /** How many answers there were of each body. */
  readonly bodies: Readonly<Record<string, number>>
  /** The first failures in words, and how many there were. */
  readonly failures: readonly string[]
  readonly failed: number
}

export interface Load extends AsyncDisposable {
  /** Ends it and answers what it counted. */
  stop(): Promise<LoadReport>
}

const parallel = 2
const pauseMs = 5
const requestTimeoutMs = 20_000
const shownFailures = 5

/** Begins at once; the machine ends it at the latest. */
export function startLoad(machine: Machine, url: string): Load {
  const program = machine.spawn([process.execPath, import.meta.filename, url])
  return {
    async stop() {
      program.kill('SIGTERM')
      await program.exited
      return JSON.parse(program.output()) as LoadReport
    },
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

async function main(url: string): Promise<void> {
  const bodies: Record<string, number> = {}
  const failures: string[] = []
  let failed = 0
  let stopped = false
  process.on('SIGTERM', () => {
    stopped = true
  })
  const request = async (): Promise<void> => {
    while (!stopped) {
      await fetchOnce(url).then(
        (body) => {
          bodies[body] = (bodies[body] ?? 0) + 1
        },
        (error: unknown) => {
          failed += 1
          if (failures.length < shownFailures) failures.push(String(error))
        },
      )
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
  }
  await Promise.all(Array.from({ length: parallel }, request))
  process.stdout.write(JSON.stringify({ bodies, failures, failed }))
}

function fetchOnce(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { agent: false, timeout: requestTimeoutMs }, (response) => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        body += part
      })
      response.on('error', reject)
      response.on('end', () =>
        response.statusCode === 200 ? resolve(body) : reject(new Error(`HTTP ${response.statusCode}`)),
      )
    })
    request.on('timeout', () => request.destroy(new Error(`no answer in ${requestTimeoutMs} ms`)))
    request.on('error', reject)
  })
}

if (import.meta.main) await main(process.argv[2] ?? '')
