/**
 * The body of a deploy as it arrives: never buffered, read only as fast as it is used.
 * `100 Continue` is sent at the first read (or before a first line of progress), so that whatever is refused before costs the caller no upload.
 * A caller who sends slower than {@link UploadPace} is cut off; the time that we take ourselves is not counted.
 * Failures while reading: ARCHIVE_TRUNCATED.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { FaasError } from '../values/errors.ts'

export interface UploadPace {
  /** How long one read may wait. */
  readonly stallMs: number
  /** Bytes a second of waiting, once `stallMs` of waiting have passed in all. */
  readonly minBytesPerSecond: number
}

export const defaultPace: UploadPace = { stallMs: 30_000, minBytesPerSecond: 1024 }

export interface Upload {
  readonly body: AsyncIterable<Uint8Array>
  /** Asks the caller for the body, if it waits to be asked. */
  askForBody(): void
  /** Aborts when the caller is gone before it has its answer. */
  readonly signal: AbortSignal
}

export function openUpload(
  request: IncomingMessage,
  response: ServerResponse,
  { pace = defaultPace }: { pace?: UploadPace } = {},
): Upload {
  const gone = new AbortController()
  response.on('close', () => {
    if (!response.writableFinished)
      gone.abort(new FaasError('ARCHIVE_TRUNCATED', 'the caller closed the connection'))
  })
  let isAsked = request.headers.expect === undefined
  const askForBody = () => {
    if (!isAsked) response.writeContinue()
    isAsked = true
  }
  return { body: readBody(request, askForBody, pace), askForBody, signal: gone.signal }
}

async function* readBody(
  request: IncomingMessage,
  askForBody: () => void,
  pace: UploadPace,
): AsyncGenerator<Uint8Array, void, undefined> {
  askForBody()
  const chunks: AsyncIterator<Buffer> = request.iterator({ destroyOnReturn: false })
  let bytes = 0
  let waitedMs = 0
  for (;;) {
    const started = performance.now()
    const next = await withinTime(chunks.next(), pace.stallMs, bytes)
    waitedMs += performance.now() - started
    if (next.done) return
    bytes += next.value.length
    const expected = ((waitedMs - pace.stallMs) / 1000) * pace.minBytesPerSecond
    if (bytes < expected)
      throw truncated(`the upload is too slow: ${bytes} bytes in ${Math.round(waitedMs / 1000)} s`)
    yield next.value
  }
}

async function withinTime<T>(reading: Promise<T>, stallMs: number, bytes: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const stalled = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(truncated(`the upload stood still for ${stallMs} ms after ${bytes} bytes`)),
      stallMs,
    )
  })
  try {
    return await Promise.race([reading, stalled])
  } catch (error) {
    reading.catch(() => {})
    if (error instanceof FaasError) throw error
    throw truncated(`the upload ended early, after ${bytes} bytes`, error)
  } finally {
    clearTimeout(timer)
  }
}

const truncated = (message: string, cause?: unknown): FaasError =>
  new FaasError('ARCHIVE_TRUNCATED', message, { hint: 'send the whole archive again', cause })
