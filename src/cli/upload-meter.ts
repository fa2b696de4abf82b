/** Shows an upload on a terminal as it goes, and the server's steps as lines anywhere. */
import type { Writable } from 'node:stream'
import type { Archive } from './archive.ts'
import { harmless, renderBytes } from './text.ts'

const redrawMs = 200

export interface UploadMeter {
  /** The archive's bytes, counted as they pass. */
  readonly measured: AsyncIterable<Uint8Array>
  /** A line of the server's. */
  step(text: string): void
  /** Leaves the cursor at the start of an empty line. */
  end(): void
}

export function createUploadMeter(
  stream: Writable & { readonly isTTY?: boolean },
  archive: Archive,
  { isShown }: { isShown: boolean },
): UploadMeter {
  const isLive = isShown && stream.isTTY === true
  let bytes = 0
  let startedAt = 0
  let drawnAt = 0
  let isDrawn = false

  const erase = () => {
    if (isDrawn) stream.write('\r\x1b[K')
    isDrawn = false
  }
  const draw = (now: number) => {
    const total = archive.bytes === undefined ? '' : ` of ${renderBytes(archive.bytes)}`
    const rate = renderBytes(bytes / Math.max((now - startedAt) / 1000, 0.001))
    erase()
    stream.write(`upload: ${renderBytes(bytes)}${total}, ${rate}/s`)
    isDrawn = true
  }

  return {
    measured: (async function* () {
      startedAt = performance.now()
      for await (const chunk of archive.body) {
        bytes += chunk.length
        const now = performance.now()
        if (isLive && now - drawnAt >= redrawMs) {
          drawnAt = now
          draw(now)
        }
        yield chunk
      }
      if (isLive) draw(performance.now())
      if (isDrawn) stream.write('\n')
      isDrawn = false
    })(),
    step(text) {
      if (!isShown) return
      erase()
      stream.write(`${harmless(text)}\n`)
    },
    end: erase,
  }
}
