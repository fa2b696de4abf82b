/** Work on many things that is given up at the first failure. */

/**
 * Runs `work` on every item, `width` at a time. After the first failure, which is thrown, no more is begun and what
 * runs is aborted; all of it has ended when the promise settles.
 */
export async function inParallel<T>(
  items: readonly T[],
  width: number,
  signal: AbortSignal | undefined,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController()
  const either = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal
  const left = items.toReversed()
  const worker = async () => {
    for (let item = left.pop(); item !== undefined; item = left.pop()) {
      either.throwIfAborted()
      await work(item, either)
    }
  }
  const workers = Array.from({ length: Math.min(width, items.length) }, () =>
    worker().catch((error: unknown) => {
      failed.abort(error)
      throw error
    }),
  )
  const results = await Promise.allSettled(workers)
  if (failed.signal.aborted && !signal?.aborted) throw failed.signal.reason
  for (const result of results) if (result.status === 'rejected') throw result.reason
}
