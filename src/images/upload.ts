/** The body of a request as a stream that can be given up at any time. */
import { FaasError } from '../values/errors.ts'

/**
 * Yields what `body` does. When `signal` aborts it throws its reason at once, also while the body says nothing.
 * A body that fails of itself (the client is gone) is ARCHIVE_TRUNCATED. The body stays the caller's: it is neither
 * drained nor destroyed, because the answer to it may have to travel on the same connection.
 */
export async function* readUpload(
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const iterator = body[Symbol.asyncIterator]()
  // One listener for all waits: a promise that is raced a million times would remember a million races.
  let giveUp: (reason: unknown) => void = () => {}
  const onAbort = () => giveUp(signal?.reason)
  signal?.addEventListener('abort', onAbort)
  try {
    for (;;) {
      signal?.throwIfAborted()
      const next = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        giveUp = reject
        iterator.next().then(resolve, (error: unknown) => reject(asTruncated(error)))
      })
      if (next.done) return
      yield next.value
    }
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
}

function asTruncated(error: unknown): unknown {
  if (error instanceof FaasError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new FaasError('ARCHIVE_TRUNCATED', `the archive ended early: ${message}`, { cause: error })
}
