/** One after another: a read, a decision and a write that must not be torn apart by another caller's. */

/** Runs each task when those before it have settled; a failed one stops nothing. */
export type Serial = <T>(task: () => Promise<T>) => Promise<T>

export function createSerial(): Serial {
  let last: Promise<unknown> = Promise.resolve()
  return (task) => {
    const result = last.then(task)
    last = result.catch(() => {})
    return result
  }
}
