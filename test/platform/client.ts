/**
 * A client in a machine: raw TCP connections, so that it is seen how each ends. Prints JSON.
 *
 *   client.ts many COUNT HOST PATH TIMEOUT_MS   COUNT connections at once; an array of {@link Outcome}
 *   client.ts loop PARALLEL HOST PATH           one request after another, PARALLEL at a time, until stdin ends; {@link LoopResult}
 */
import { connect } from 'node:net'

export interface Outcome {
  /** `answer`: the server closed after bytes came; `closed`: without any; `timeout`: still open then; else the errno. */
  readonly end: string
  readonly status: number
  readonly body: string
  readonly ms: number
  /** From the first byte to the end. */
  readonly msAfterFirstByte: number
}

export interface LoopResult {
  /** Bodies that came with status 200, and how often. */
  readonly answers: Readonly<Record<string, number>>
  readonly failures: readonly Outcome[]
}

function request(host: string, path: string, timeoutMs: number): Promise<Outcome> {
  const { promise, resolve } = Promise.withResolvers<Outcome>()
  const begin = performance.now()
  let first = 0
  let text = ''
  const done = (end: string) => {
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0)
    const body = text.slice(text.indexOf('\r\n\r\n') + 4)
    const now = performance.now()
    resolve({ end, status, body, ms: now - begin, msAfterFirstByte: first === 0 ? 0 : now - first })
    socket.destroy()
  }
  const socket = connect({ host, port: 80 }, () =>
    socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`),
  )
  const timer = setTimeout(() => done('timeout'), timeoutMs)
  socket.on('data', (part: Buffer) => {
    if (first === 0) first = performance.now()
    text += part.toString()
  })
  socket.on('end', () => done(text === '' ? 'closed' : 'answer'))
  socket.on('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message))
  return promise.finally(() => clearTimeout(timer))
}

async function loop(parallel: number, host: string, path: string): Promise<LoopResult> {
  let stopped = false
  process.stdin.resume().once('end', () => (stopped = true))
  const answers: Record<string, number> = {}
  const failures: Outcome[] = []
  const one = async () => {
    while (!stopped) {
      const outcome = await request(host, path, 60_000)
      const isGood = outcome.end === 'answer' && outcome.status === 200
      if (isGood) answers[outcome.body] = (answers[outcome.body] ?? 0) + 1
      else failures.push(outcome)
    }
  }
  await Promise.all(Array.from({ length: parallel }, one))
  return { answers, failures }
}

const [mode, count = '1', host = '', path = '/', timeoutMs = '60000'] = process.argv.slice(2)
const result =
  mode === 'loop'
    ? await loop(Number(count), host, path)
    : await Promise.all(Array.from({ length: Number(count) }, () => request(host, path, Number(timeoutMs))))
console.log(JSON.stringify(result))
