/**
 * Bytes from a handler's output to lines. Bounded: a line without an end is cut at `maxLineBytes`, and past
 * `maxLinesPerSecond` lines are only counted and said so in one line, so that a loud handler costs little.
 */

export interface LineSplitter {
  push(chunk: Uint8Array): void
  /** Gives out what is left without a line end, and what was dropped. */
  end(): void
}

export interface LineSplitterOptions {
  readonly maxLineBytes: number
  readonly maxLinesPerSecond: number
  /** Monotonic milliseconds. */
  readonly nowMs: () => number
  readonly onLine: (text: string) => void
}

const newline = 0x0a

export function createLineSplitter({
  maxLineBytes,
  maxLinesPerSecond,
  nowMs,
  onLine,
}: LineSplitterOptions): LineSplitter {
  let pending = Buffer.alloc(0)
  /** The rest of a line that was cut is dropped up to its end. */
  let skipping = false
  let second = 0
  let linesThisSecond = 0
  let dropped = 0

  const sayDropped = (): void => {
    if (dropped > 0) onLine(`(${dropped} lines dropped: more than ${maxLinesPerSecond} a second)`)
    dropped = 0
  }
  const emit = (bytes: Uint8Array): void => {
    const now = Math.floor(nowMs() / 1000)
    if (now !== second) {
      second = now
      linesThisSecond = 0
      sayDropped()
    }
    linesThisSecond++
    if (linesThisSecond > maxLinesPerSecond) dropped++
    else onLine(Buffer.from(bytes).toString('utf8').replace(/\r$/, ''))
  }

  return {
    push(chunk) {
      let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
      while (rest.length > 0) {
        const end = rest.indexOf(newline)
        const part = end < 0 ? rest : rest.subarray(0, end)
        rest = end < 0 ? rest.subarray(rest.length) : rest.subarray(end + 1)
        if (!skipping) {
          const line = pending.length === 0 ? part : Buffer.concat([pending, part])
          if (line.length >= maxLineBytes) {
            emit(line.subarray(0, maxLineBytes))
            pending = Buffer.alloc(0)
            skipping = true
          } else if (end < 0) {
            // A copy: the chunk's memory is the reader's and is used again.
            pending = Buffer.from(line)
          } else {
            emit(line)
            pending = Buffer.alloc(0)
          }
        }
        if (end >= 0) skipping = false
      }
    },
    end() {
      if (pending.length > 0) emit(pending)
      pending = Buffer.alloc(0)
      sayDropped()
    },
  }
}
