/**
 * `caller.ts ADDRESS PATH COUNT CONCURRENCY`: calls a function so many times, each on a connection of its own, and
 * prints a JSON array of what the answers said, with the time of the call (CLOCK_MONOTONIC, ms) and the time until the
 * first byte. A call that fails is an entry with `error`.
 */
import { connect } from 'node:net'

const [address = '', path = '/', count = '1', concurrency = '1'] = process.argv.slice(2)
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6

function call(): Promise<object> {
  return new Promise((resolve) => {
    const calledAt = nowMs()
    let firstByteMs: number | undefined
    let text = ''
    const socket = connect({ host: address, port: 80 })
    const end = (error?: string): void => {
      socket.destroy()
      const body = text.slice(text.indexOf('\r\n\r\n') + 4)
      try {
        if (error !== undefined) throw new Error(error)
        resolve({ ...JSON.parse(body), calledAt, firstByteMs })
      } catch (cause) {
        resolve({ error: String(cause), calledAt, firstByteMs })
      }
    }
    socket.write(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`)
    socket.on('data', (part: Buffer) => {
      firstByteMs ??= nowMs() - calledAt
      text += part.toString()
    })
    socket.on('end', () => end())
    socket.on('error', (error) => end(error.message))
    socket.setTimeout(60_000, () => end('no answer for 60 s'))
  })
}

const calls: object[] = []
let left = Number(count)
async function work(): Promise<void> {
  while (left > 0) {
    left--
    calls.push(await call())
  }
}
await Promise.all(Array.from({ length: Number(concurrency) }, work))
process.stdout.write(JSON.stringify(calls))
