import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { FaasError } from '../values/errors.ts'
import { CompressionError, uncompressed } from './compression.ts'

const limits = { maxBytes: 2 ** 30, ratio: 500 }

async function* pieces(bytes: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  // One buffer again and again, as the sources may do.
  const buffer = new Uint8Array(pieceBytes)
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    const length = Math.min(pieceBytes, bytes.length - at)
    buffer.set(bytes.subarray(at, at + length))
    yield buffer.subarray(0, length)
  }
}

async function all(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of source) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

const content = Buffer.concat([randomBytes(90_000), Buffer.alloc(100_000), randomBytes(1000)])
const forms = {
  plain: content,
  gzip: gzipSync(content),
  'gzip of two members': Buffer.concat([
    gzipSync(content.subarray(0, 5000)),
    gzipSync(content.subarray(5000)),
  ]),
  zstd: zstdCompressSync(content),
}

for (const [form, bytes] of Object.entries(forms)) {
  for (const size of [3, 4096, 70_000]) {
    if (size === 3 && form !== 'plain') continue
    test(`uncompressed() yields the bytes of a ${form} stream in chunks of ${size}`, async () => {
      assert.deepEqual(await all(uncompressed(pieces(bytes, size), limits)), content)
    })
  }
}

test('uncompressed() takes streams of 0 to 3 bytes as plain', async () => {
  for (const text of ['', 'a', 'abc']) {
    assert.equal((await all(uncompressed(pieces(Buffer.from(text), 2), limits))).toString(), text)
  }
})

for (const form of ['gzip', 'zstd'] as const) {
  test(`uncompressed() refuses ${form} that is cut`, async () => {
    const cut = forms[form].subarray(0, forms[form].length - 100)
    await assert.rejects(all(uncompressed(pieces(cut, 4096), limits)), CompressionError)
  })
  test(`uncompressed() refuses ${form} that is damaged`, async () => {
    const damaged = Buffer.from(forms[form])
    damaged.fill(0xa5, 8, 2000)
    await assert.rejects(all(uncompressed(pieces(damaged, 4096), limits)), CompressionError)
  })
  test(`uncompressed() passes on a failure of the source of ${form}`, async () => {
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield forms[form].subarray(0, 1000)
      throw new FaasError('ARCHIVE_TRUNCATED', 'gone')
    }
    await assert.rejects(all(uncompressed(failing(), limits)), { code: 'ARCHIVE_TRUNCATED' })
  })
}

test('uncompressed() stops at the bound of bytes', async () => {
  const bomb = gzipSync(Buffer.alloc(4_000_000))
  await assert.rejects(all(uncompressed(pieces(bomb, 4096), { ...limits, maxBytes: 1_000_000 })), {
    code: 'IMAGE_TOO_LARGE',
  })
})

test('uncompressed() stops at the bound of the ratio', async () => {
  // 300 MiB of zeros in zstd frames of 32 MiB each.
  const frame = zstdCompressSync(Buffer.alloc(32 * 2 ** 20))
  const bomb = Buffer.concat(Array.from({ length: 10 }, () => frame))
  let bytes = 0
  const reading = async () => {
    for await (const chunk of uncompressed(pieces(bomb, 65536), { maxBytes: 2 ** 40, ratio: 500 }))
      bytes += chunk.length
  }
  await assert.rejects(reading(), { code: 'IMAGE_TOO_LARGE' })
  assert.ok(bytes <= 257 * 2 ** 20)
})

test('uncompressed() closes its source when its reader leaves', async () => {
  for (const bytes of [content, forms.gzip]) {
    let closed = false
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        yield* pieces(bytes, 1000)
      } finally {
        closed = true
      }
    }
    for await (const _chunk of uncompressed(source(), limits)) break
    assert.equal(closed, true)
  }
})
