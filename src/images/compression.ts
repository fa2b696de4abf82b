/**
 * Uncompressed bytes of a stream that may be gzip (RFC 1952, several members too), zstd (RFC 8878) or plain: told by
 * its first bytes, never by its name or media type. Bounded in bytes and in ratio, so that a small body cannot become
 * a full disk: past a bound IMAGE_TOO_LARGE. Damaged compression is a {@link CompressionError}.
 */
import { constants, createGunzip, createZstdDecompress } from 'node:zlib'
import { FaasError } from '../values/errors.ts'
import type { ImageLimits } from './limits.ts'

export type Compression = 'none' | 'gzip' | 'zstd'

/** The compressed bytes are damaged or end too early. */
export class CompressionError extends Error {}

export interface CompressionLimits {
  readonly maxBytes: number
  readonly ratio: ImageLimits['compressionRatio']
}

const magicBytes = 4
/** A ratio says nothing about small amounts: a file of zeros is no attack. */
const ratioFreeBytes = 256 * 1024 * 1024
const engineChunkBytes = 128 * 1024
/** Memory of the decompressor: 2^27 = 128 MiB, the most that RFC 8878 asks of a decoder is 8 MiB. */
const zstdWindowLog = 27

/** What compression a stream with these first bytes has. */
export function detectCompression(first: Uint8Array): Compression {
  if (first[0] === 0x1f && first[1] === 0x8b) return 'gzip'
  if (first[0] === 0x28 && first[1] === 0xb5 && first[2] === 0x2f && first[3] === 0xfd) return 'zstd'
  return 'none'
}

/**
 * Yields the uncompressed bytes of `source`. A chunk is good until the next is asked for. The source may reuse
 * its buffer between chunks.
 */
export async function* uncompressed(
  source: AsyncIterable<Uint8Array>,
  limits: CompressionLimits,
): AsyncGenerator<Uint8Array, void, undefined> {
  const iterator = source[Symbol.asyncIterator]()
  try {
    const first = await firstBytes(iterator)
    const compression = detectCompression(first)
    const counted = { in: 0, out: 0 }
    const whole = startingWith(first, iterator, counted)
    const plain = compression === 'none' ? whole : decompressed(whole, compression)
    for await (const chunk of plain) {
      counted.out += chunk.length
      check(counted, compression, limits)
      yield chunk
    }
  } finally {
    await iterator.return?.()
  }
}

function check(
  counted: { in: number; out: number },
  compression: Compression,
  limits: CompressionLimits,
): void {
  if (counted.out > limits.maxBytes) {
    throw new FaasError('IMAGE_TOO_LARGE', `more than ${limits.maxBytes} bytes uncompressed`, {
      hint: 'make the image smaller',
    })
  }
  if (compression === 'none' || counted.out <= ratioFreeBytes) return
  if (counted.out > (counted.in + engineChunkBytes) * limits.ratio) {
    throw new FaasError(
      'IMAGE_TOO_LARGE',
      `compressed more than ${limits.ratio} times: this looks like a bomb`,
      {
        hint: 'remove large files of equal bytes from the image',
      },
    )
  }
}

/** A copy of the first bytes: as many as a magic number has, where the stream has them. */
async function firstBytes(iterator: AsyncIterator<Uint8Array>): Promise<Uint8Array> {
  let first = new Uint8Array(0)
  while (first.length < magicBytes) {
    const next = await iterator.next()
    if (next.done) break
    first = Uint8Array.from(Buffer.concat([first, next.value]))
  }
  return first
}

async function* startingWith(
  first: Uint8Array,
  iterator: AsyncIterator<Uint8Array>,
  counted: { in: number },
): AsyncGenerator<Uint8Array, void, undefined> {
  counted.in += first.length
  if (first.length > 0) yield first
  for (;;) {
    const next = await iterator.next()
    if (next.done) return
    counted.in += next.value.length
    yield next.value
  }
}

async function* decompressed(
  source: AsyncIterable<Uint8Array>,
  compression: 'gzip' | 'zstd',
): AsyncGenerator<Uint8Array, void, undefined> {
  const engine =
    compression === 'gzip'
      ? createGunzip({ chunkSize: engineChunkBytes })
      : createZstdDecompress({
          chunkSize: engineChunkBytes,
          params: { [constants.ZSTD_d_windowLogMax]: zstdWindowLog },
        })
  let sourceError: unknown
  // A damaged stream destroys the engine without calling back for the write that it was at.
  let stopWaiting = () => {}
  engine.once('close', () => stopWaiting())
  const feeding = (async () => {
    try {
      for await (const chunk of source) {
        // The callback comes when the bytes have been taken: until then the buffer is the engine's.
        await new Promise<void>((resolve) => {
          stopWaiting = resolve
          engine.write(chunk, () => resolve())
        })
        if (engine.destroyed) return
      }
      engine.end()
    } catch (error) {
      sourceError = error
      engine.destroy(error as Error)
    }
  })()
  try {
    for await (const chunk of engine) yield chunk as Uint8Array
  } catch (error) {
    await feeding
    const code = (error as NodeJS.ErrnoException).code ?? ''
    const ofEngine = error !== sourceError || /^(Z_|ZSTD_|ERR_)/.test(code)
    if (!ofEngine || error instanceof FaasError) throw error
    throw new CompressionError(`damaged ${compression} data: ${(error as Error).message}`, { cause: error })
  } finally {
    engine.destroy()
    await feeding
  }
}
