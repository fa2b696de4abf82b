/** The promise that a large image costs the daemon little memory: here 2 GiB adds less than 64 MiB. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { renderTar, type TarEntry } from '../images/tar.ts'
import { createTestStore, needsRoot, sha256, thisArchitecture } from './fixtures.ts'

const mebibyte = 2 ** 20
const fileBytes = 2048 * mebibyte
const maxAddedBytes = 64 * mebibyte
const chunk = randomBytes(mebibyte)

/** The header of a file of that many bytes. */
const headerOf = (path: string, bytes: number): Buffer => {
  const header = renderTar([{ path, content: Buffer.alloc(0) }]).subarray(0, 512)
  header.write(bytes.toString(8).padStart(11, '0'), 124)
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return header
}

/** A layer with one file of 2 GiB. */
async function* layer(): AsyncGenerator<Uint8Array> {
  yield headerOf('large', fileBytes)
  for (let sent = 0; sent < fileBytes; sent += chunk.length) yield chunk
  yield Buffer.alloc(1024)
}

async function* archive(): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256')
  yield headerOf('layer.tar', fileBytes + 1536)
  for await (const piece of layer()) {
    hash.update(piece)
    yield piece
  }
  const rootfs = { type: 'layers', diff_ids: [`sha256:${hash.digest('hex')}`] }
  const config = Buffer.from(
    JSON.stringify({ architecture: thisArchitecture, os: 'linux', config: {}, rootfs }),
  )
  const name = `${sha256(config)}.json`
  const manifest = JSON.stringify([{ Config: name, RepoTags: null, Layers: ['layer.tar'] }])
  const entries: TarEntry[] = [
    { path: name, content: config },
    { path: 'manifest.json', content: manifest },
  ]
  yield renderTar(entries)
}

test('receive() of 2 GiB adds less than 64 MiB to the process', { skip: needsRoot }, async (t) => {
  const { store, tree } = await createTestStore(t)
  let largest = 0
  const before = process.memoryUsage().rss
  const watch = setInterval(() => {
    largest = Math.max(largest, process.memoryUsage().rss)
  }, 20)
  t.after(() => clearInterval(watch))
  const image = await store.receive(archive())
  t.diagnostic(`${Math.round((largest - before) / mebibyte)} MiB added`)
  assert.ok(largest > 0)
  assert.ok(largest - before < maxAddedBytes, `${largest - before} bytes added`)
  assert.equal((await lstat(join(tree(image.layers[0] ?? ''), 'large'))).size, fileBytes)
})
