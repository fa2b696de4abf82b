/**
 * The work on one layer of an archive, as a value that can be handed to another process ({@link ./layer-program.ts}):
 * check its digest and, if asked, write it as a tar stream for the unpacker.
 */
import { read as readCallback } from 'node:fs'
import { promisify } from 'node:util'
import { FaasError } from '../values/errors.ts'
import { CompressionError, uncompressed } from './compression.ts'
import { invalid } from './layer-paths.ts'
import { type LayerSurvey, renderLayer, type Sink, surveyLayer } from './layer-stream.ts'

const read = promisify(readCallback)

export interface LayerJob {
  /** Its position in the image, for messages: 0 is the bottom. */
  readonly index: number
  /** Where its bytes, compressed or not, lie in the spool file. */
  readonly offset: number
  readonly size: number
  /** SHA-256 that the uncompressed bytes must have, in hex. */
  readonly diffHash: string
  /** Whether it is to be written to the sink after the check. */
  readonly render: boolean
  readonly maxEntries: number
  readonly maxRemembered: number
  /** Bytes of the uncompressed layer, and so of its files. */
  readonly maxBytes: number
  readonly compressionRatio: number
}

export interface LayerReport {
  readonly fileBytes: number
  readonly entries: number
  /** Whether nothing of the layers below is to be seen. */
  readonly rootOpaque: boolean
}

const readBytes = 256 * 1024

/** Throws IMAGE_DIGEST_MISMATCH, IMAGE_LAYER_INVALID, IMAGE_TOO_LARGE. Nothing is rendered of a layer that fails. */
export async function runLayerJob(job: LayerJob, spool: number, sink: Sink): Promise<LayerReport> {
  const bounds = {
    maxEntries: job.maxEntries,
    maxLinks: job.maxRemembered,
    maxMarks: job.maxRemembered,
    maxFileBytes: job.maxBytes,
  }
  const open = () =>
    uncompressed(spoolRange(spool, job.offset, job.size), {
      maxBytes: job.maxBytes,
      ratio: job.compressionRatio,
    })
  try {
    const survey = await surveyLayer(open(), bounds)
    checkDigest(job, survey)
    if (job.render) await renderLayer(open(), survey, bounds, sink)
    return { fileBytes: survey.fileBytes, entries: survey.entries, rootOpaque: survey.opaque.has('') }
  } catch (error) {
    if (error instanceof CompressionError) throw invalid(`layer ${job.index}: ${error.message}`)
    throw error
  }
}

function checkDigest(job: LayerJob, survey: LayerSurvey): void {
  if (survey.diffHash === job.diffHash) return
  throw new FaasError(
    'IMAGE_DIGEST_MISMATCH',
    `layer ${job.index} is sha256:${survey.diffHash}, the image config says sha256:${job.diffHash}`,
    { hint: 'the archive is damaged: save the image again' },
  )
}

/** Part of a file, in one buffer that is used again for each chunk. */
async function* spoolRange(fd: number, offset: number, size: number): AsyncGenerator<Uint8Array> {
  const buffer = Buffer.allocUnsafe(Math.min(readBytes, Math.max(size, 1)))
  let at = 0
  while (at < size) {
    const { bytesRead } = await read(fd, buffer, 0, Math.min(buffer.length, size - at), offset + at)
    if (bytesRead === 0) throw new FaasError('INTERNAL', 'the spool file is shorter than its index says')
    yield buffer.subarray(0, bytesRead)
    at += bytesRead
  }
}
