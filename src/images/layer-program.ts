/**
 * A program of its own for the work on one layer: the job as JSON in the first argument, the spool file as
 * descriptor 3, the tar stream to standard output, and one line of JSON to descriptor 4 at the end:
 * `{"report":…}` or `{"error":{code,message,hint}}`.
 *
 * When standard input ends, whoever started it is gone, and it ends as well.
 *
 * A process of its own because foreign bytes are decompressed and parsed here: it may be slow, it may grow, it may
 * crash, and the daemon goes on serving. It needs no file, no network and no privilege. And one for each layer,
 * because a layer that took it over could then lie about no digest but its own.
 */
import { writeSync } from 'node:fs'
import { argv, exit, stdin, stdout } from 'node:process'
import { toFaasError } from '../values/errors.ts'
import { type LayerJob, type LayerReport, runLayerJob } from './layer-job.ts'
import type { Sink } from './layer-stream.ts'

const spoolDescriptor = 3
const answerDescriptor = 4
const outputBytes = 256 * 1024

export type LayerAnswer =
  | { readonly report: LayerReport }
  | {
      readonly error: { readonly code: string; readonly message: string; readonly hint?: string | undefined }
    }

/** Gathers small pieces, so that a thousand small files are few writes. */
function createOutput(): { sink: Sink; flush: () => Promise<void> } {
  const buffer = Buffer.allocUnsafe(outputBytes)
  let filled = 0
  const write = (bytes: Uint8Array) =>
    new Promise<void>((resolve, reject) =>
      stdout.write(bytes, (error) => (error ? reject(error) : resolve())),
    )
  const flush = async () => {
    if (filled > 0) await write(buffer.subarray(0, filled))
    filled = 0
  }
  const sink: Sink = async (bytes) => {
    if (filled + bytes.length > buffer.length) await flush()
    if (bytes.length >= buffer.length) return write(bytes)
    buffer.set(bytes, filled)
    filled += bytes.length
  }
  return { sink, flush }
}

async function work(): Promise<LayerAnswer> {
  const output = createOutput()
  try {
    const job = JSON.parse(argv[2] ?? '') as LayerJob
    const report = await runLayerJob(job, spoolDescriptor, output.sink)
    await output.flush()
    return { report }
  } catch (error) {
    const { code, message, hint } = toFaasError(error)
    return { error: { code, message, hint } }
  }
}

// A reader that is gone is the failed unpacker, which says more about it than we can.
stdout.on('error', () => {})
stdin.on('end', () => exit(1)).resume()
const answer = await work()
writeSync(answerDescriptor, `${JSON.stringify(answer)}\n`)
exit(0)
