/**
 * The health check of `--health PATH`: one HTTP/1.1 GET, of whose answer the status line is read and no more. It is
 * asked of instances that are being tried, before anybody else reaches them.
 */
import { Socket } from 'node:net'

/** Longer status lines are none. */
const maxStatusLineBytes = 4096
/** A server that says 503 while it warms up is asked again after this. */
const retryMs = 100
const statusLine = /^HTTP\/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?\r?\n/

export interface HealthQuestion {
  /** For the header Host. */
  readonly host: string
  readonly path: string
  readonly signal: AbortSignal
}

export interface HealthAnswer {
  readonly healthy: boolean
  /** What came of it, for people: `answered 503`. */
  readonly words: string
}

/** Asks on a connection, or one on its way, which is closed afterwards. Never rejects. */
export function askHealth(fd: number, { host, path, signal }: HealthQuestion): Promise<HealthAnswer> {
  const socket = new Socket({ fd, readable: true, writable: true })
  return new Promise((resolve) => {
    let text = ''
    const settle = (healthy: boolean, words: string): void => {
      signal.removeEventListener('abort', onAbort)
      socket.destroy()
      resolve({ healthy, words })
    }
    const onAbort = (): void => settle(false, 'did not answer')
    socket.on('error', ({ message }) => settle(false, `broke the connection (${message})`))
    socket.on('close', () => settle(false, 'closed the connection without an HTTP answer'))
    socket.on('data', (part: Buffer) => {
      text += part.toString('latin1')
      const [, status] = statusLine.exec(text) ?? []
      if (status !== undefined) settle(status.startsWith('2'), `answered ${status}`)
      else if (text.length > maxStatusLineBytes || text.includes('\n'))
        settle(false, 'did not answer in HTTP/1')
    })
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) return onAbort()
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: faasd\r\nAccept: */*\r\nConnection: close\r\n\r\n`,
    )
  })
}

/** Asks on connections made by `connect` until the answer is right or the signal aborts; answers the last answer. */
export async function askUntilHealthy(
  connect: () => number,
  question: HealthQuestion,
): Promise<HealthAnswer> {
  const { signal } = question
  let last: HealthAnswer = { healthy: false, words: 'did not answer' }
  while (!signal.aborted) {
    const answer = await askOnce(connect, question)
    if (answer.healthy) return answer
    // The deadline cuts off a question that may have followed a plain answer: that one tells more.
    if (!signal.aborted || last.words === 'did not answer') last = answer
    await pause(retryMs, signal)
  }
  return last
}

async function askOnce(connect: () => number, question: HealthQuestion): Promise<HealthAnswer> {
  try {
    return await askHealth(connect(), question)
  } catch (error) {
    return { healthy: false, words: `could not be asked (${String(error)})` }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done, { once: true })
  })
}
