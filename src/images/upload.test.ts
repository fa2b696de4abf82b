import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { FaasError } from '../values/errors.ts'
import { readUpload } from './upload.ts'

async function all(source: AsyncIterable<Uint8Array>): Promise<string> {
  let text = ''
  for await (const chunk of source) text += Buffer.from(chunk).toString()
  return text
}

test('readUpload() yields the body', async () => {
  assert.equal(await all(readUpload(Readable.from([Buffer.from('a'), Buffer.from('b')]), undefined)), 'ab')
})

test('readUpload() does not destroy a body that it leaves', async () => {
  const body = Readable.from([Buffer.from('a'), Buffer.from('b')])
  for await (const _chunk of readUpload(body, undefined)) break
  assert.equal(body.destroyed, false)
})

test('readUpload() throws the reason of its signal while the body says nothing', async () => {
  const cancel = new AbortController()
  const body = new Readable({ read() {} })
  const reading = all(readUpload(body, cancel.signal))
  setImmediate(() => cancel.abort(new Error('enough')))
  await assert.rejects(reading, { message: 'enough' })
  await assert.rejects(all(readUpload(body, cancel.signal)), { message: 'enough' })
})

test('readUpload() calls a body that fails truncated, and passes on an error with a code of ours', async () => {
  const failing = (error: Error) =>
    new Readable({ read: (): void => void setImmediate(() => broken.destroy(error)) })
  let broken = failing(new Error('aborted'))
  await assert.rejects(all(readUpload(broken, undefined)), { code: 'ARCHIVE_TRUNCATED' })
  broken = failing(new FaasError('IMAGE_TOO_LARGE', 'too large'))
  await assert.rejects(all(readUpload(broken, undefined)), { code: 'IMAGE_TOO_LARGE' })
})
