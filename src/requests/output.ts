/**
 * What one instance prints, from its FIFOs to the log and to `faas logs`. Reading is bounded in rate: past
 * {@link maxBytesPerTurn} a turn the reader pauses and the container waits in its write, so that the loudest
 * handler costs the daemon a few per cent and no memory.
 */
import { join } from 'node:path'
import { makeFifo, openFifoReader, openFifoWriter, readAvailable } from '../host/native/fifo.ts'
import type { Poller } from '../host/native/poller.ts'
import { closeFd } from '../host/native/sockets.ts'
import { type FunctionLogs, maxLineBytes } from '../telemetry/function-log.ts'
import { createLineSplitter } from '../telemetry/lines.ts'
import type { Log } from '../telemetry/log.ts'

const streams = ['stdout', 'stderr'] as const
const bufferBytes = 64 * 1024
const maxBytesPerTurn = 256 * 1024
const turnMs = 50
const maxLinesPerSecond = 200
/** A FIFO holds 64 KiB (pipe(7)); what an ended instance left in one is read in this many reads at most. */
const finalReads = 16

export interface OutputDeps {
  readonly poller: Poller
  readonly log: Log
  readonly logs: FunctionLogs
}

export interface Output extends Disposable {
  /** Hands the container's ends to `use`, and closes them when it is done. */
  withWriters<T>(use: (stdout: number, stderr: number) => Promise<T>): Promise<T>
}

/**
 * Opens (or, after a restart, finds again) the FIFOs in an instance's directory and reads them until disposed;
 * disposing reads what is left first.
 */
export function openOutput(directory: string, functionName: string, id: string, deps: OutputDeps): Output {
  const buffer = Buffer.alloc(bufferBytes)
  using undo = new DisposableStack()
  const readers = streams.map((stream) => {
    const path = join(directory, stream)
    makeFifo(path)
    const fd = undo.adopt(openFifoReader(path), closeFd)
    const lines = createLineSplitter({
      maxLineBytes,
      maxLinesPerSecond,
      nowMs: () => performance.now(),
      onLine: (text) => {
        deps.logs.append({ time: new Date(), function: functionName, instance: id, stream, text })
        deps.log.info(`${functionName}/${id}`, `Container ${stream}: ${text}`)
      },
    })
    return { path, fd, lines, turnStart: 0, turnBytes: 0, pause: undefined as NodeJS.Timeout | undefined }
  })
  type Reader = (typeof readers)[number]

  const watch = (reader: Reader): void => {
    reader.pause = undefined
    deps.poller.watch(reader.fd, () => {
      const bytes = readAvailable(reader.fd, buffer)
      if (bytes > 0) reader.lines.push(buffer.subarray(0, bytes))
      const now = performance.now()
      if (now - reader.turnStart > turnMs) {
        reader.turnStart = now
        reader.turnBytes = 0
      }
      reader.turnBytes += bytes
      if (reader.turnBytes < maxBytesPerTurn) return
      deps.poller.unwatch(reader.fd)
      reader.pause = setTimeout(() => watch(reader), turnMs)
    })
  }
  for (const reader of readers) watch(reader)
  const held = undo.move()

  let disposed = false
  return {
    async withWriters(use) {
      using writers = new DisposableStack()
      const [stdout = -1, stderr = -1] = readers.map(({ path }) =>
        writers.adopt(openFifoWriter(path), closeFd),
      )
      return await use(stdout, stderr)
    },
    [Symbol.dispose]() {
      if (disposed) return
      disposed = true
      for (const reader of readers) {
        clearTimeout(reader.pause)
        deps.poller.unwatch(reader.fd)
        for (let left = finalReads; left > 0; left--) {
          const bytes = readAvailable(reader.fd, buffer)
          if (bytes === 0) break
          reader.lines.push(buffer.subarray(0, bytes))
        }
        reader.lines.end()
      }
      held.dispose()
    },
  }
}
