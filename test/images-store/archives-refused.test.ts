/** Bad archives, by the numbers of the list of bad inputs: a stable code, nothing left, nothing touched outside. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { renderTar, type TarEntry } from '../images/tar.ts'
import {
  archiveOfLayer,
  body,
  configOf,
  createDirectory,
  createTestStore,
  layerOf,
  legacyArchive,
  legacyEntries,
  needsRoot,
  sha256,
  snapshot,
  type TestStore,
} from './fixtures.ts'

const skip = needsRoot
const layer = layerOf({ path: 'hello', content: '#!', mode: 0o755 })
const good = legacyArchive({ layers: [layer] })

/** A store that has one image, so that it is seen that a refusal leaves that alone. */
async function createUsedStore(t: TestContext, limits = {}): Promise<TestStore> {
  const used = await createTestStore(t, limits)
  await used.store.receive(body(archiveOfLayer({ path: 'older', content: 'older' })))
  return used
}

async function refuses(
  { store, root }: TestStore,
  archive: AsyncIterable<Uint8Array> | Uint8Array,
  code: string,
): Promise<void> {
  const before = await snapshot(root)
  const stream = archive instanceof Uint8Array ? body(archive) : archive
  await assert.rejects(store.receive(stream), (error: Error & { code: string }) => {
    assert.equal(error.code, code, error.message)
    assert.notEqual(error.message, '')
    return true
  })
  assert.deepEqual(await snapshot(root), before)
}

const withManifest = (content: string, ...more: TarEntry[]): Buffer =>
  renderTar([
    { path: 'hello.json', content: configOf([layer]) },
    { path: 'l.tar', content: layer },
    ...more,
    { path: 'manifest.json', content },
  ])

test('B01 an empty body', { skip }, async (t) => {
  await refuses(await createUsedStore(t), Buffer.alloc(0), 'ARCHIVE_INVALID')
})

test('B02 random bytes', { skip }, async (t) => {
  const used = await createUsedStore(t)
  await refuses(used, randomBytes(100_000), 'ARCHIVE_INVALID')
  await refuses(used, Buffer.from([0x1f, 0x8b, ...randomBytes(50_000)]), 'ARCHIVE_INVALID')
  await refuses(used, Buffer.from([0x28, 0xb5, 0x2f, 0xfd, ...randomBytes(50_000)]), 'ARCHIVE_INVALID')
})

test('B03 an archive that is cut at any block', { skip }, async (t) => {
  const used = await createUsedStore(t)
  for (let bytes = 512; bytes < good.length; bytes += 512) {
    await refuses(used, good.subarray(0, bytes), 'ARCHIVE_TRUNCATED')
  }
  await used.store.receive(body(good))
})

test('B04 a client that is gone in mid-body: staging is gone within a second', { skip }, async (t) => {
  const { store, root } = await createUsedStore(t)
  async function* dying(): AsyncGenerator<Uint8Array> {
    yield good.subarray(0, 1000)
    throw Object.assign(new Error('aborted'), { code: 'ECONNRESET' })
  }
  await assert.rejects(store.receive(dying()), { code: 'ARCHIVE_TRUNCATED' })
  assert.deepEqual(await readdir(join(root, 'store', 'staging')), [])
})

test('B04 a deploy that is cancelled while the body says nothing', { skip }, async (t) => {
  const { store, root } = await createUsedStore(t)
  const staging = join(root, 'store', 'staging')
  const cancel = new AbortController()
  async function* silent(): AsyncGenerator<Uint8Array> {
    yield good.subarray(0, 1000)
    await new Promise(() => {})
  }
  const receiving = store.receive(silent(), { signal: cancel.signal })
  receiving.catch(() => {})
  await eventually('staging', async () => assert.equal((await readdir(staging)).length, 1))
  cancel.abort()
  await assert.rejects(receiving, { code: 'ARCHIVE_TRUNCATED' })
  assert.deepEqual(await readdir(staging), [])
})

test('B05 a body that ends before its archive does', { skip }, async (t) => {
  await refuses(await createUsedStore(t), good.subarray(0, good.length - 1500), 'ARCHIVE_TRUNCATED')
  await refuses(await createUsedStore(t), good.subarray(0, 700), 'ARCHIVE_TRUNCATED')
})

test('B06 a body in chunks of any size', { skip }, async (t) => {
  const { store } = await createUsedStore(t)
  for (const bytes of [1, 511, 513, 4096]) await store.receive(body(good, bytes))
})

test('B07 no manifest.json', { skip }, async (t) => {
  const used = await createUsedStore(t)
  const entries = legacyEntries([{ layers: [layer] }]).filter(({ path }) => path !== 'manifest.json')
  await refuses(used, renderTar(entries), 'ARCHIVE_INVALID')
  await refuses(used, layer, 'ARCHIVE_INVALID')
})

for (const manifest of ['null', '[]', '{}', '[{}]', '', '[', '"x"', '[{"Config":1,"Layers":[]}]', '\xff']) {
  test(`B08 the manifest ${JSON.stringify(manifest)}`, { skip }, async (t) => {
    await refuses(await createUsedStore(t), withManifest(manifest), 'ARCHIVE_INVALID')
  })
}

test('B09 a config that is named out of the archive', { skip }, async (t) => {
  const used = await createUsedStore(t)
  for (const Config of ['../../etc/passwd', '/etc/passwd', '', '.']) {
    await refuses(used, withManifest(JSON.stringify([{ Config, Layers: ['l.tar'] }])), 'ARCHIVE_INVALID')
  }
})

test('B10 a layer that is named out of the archive', { skip }, async (t) => {
  const used = await createUsedStore(t)
  for (const name of ['../../etc/shadow', '/etc/shadow', '']) {
    const manifest = JSON.stringify([{ Config: 'hello.json', Layers: [name] }])
    await refuses(used, withManifest(manifest), 'ARCHIVE_INVALID')
  }
})

test('B12 a manifest.json that is a symlink out of the archive', { skip }, async (t) => {
  const used = await createUsedStore(t)
  const secret = join(await createDirectory(t), 'manifest')
  await writeFile(secret, '[]')
  for (const target of ['/etc/passwd', secret, `../../../../..${secret}`]) {
    await refuses(used, renderTar([{ path: 'manifest.json', type: 'symlink', target }]), 'ARCHIVE_INVALID')
    await refuses(used, renderTar([{ path: 'manifest.json', type: 'hardlink', target }]), 'ARCHIVE_INVALID')
  }
})

test('B13 a loop of symlinks', { skip }, async (t) => {
  const used = await createUsedStore(t)
  const loop: TarEntry[] = [
    { path: 'l.tar', type: 'symlink', target: 'm.tar' },
    { path: 'm.tar', type: 'symlink', target: './l.tar' },
  ]
  const manifest = JSON.stringify([{ Config: 'hello.json', Layers: ['l.tar'] }])
  await refuses(used, withManifest(manifest, ...loop), 'ARCHIVE_INVALID')
  const itself: TarEntry = { path: 'manifest.json', type: 'symlink', target: 'manifest.json' }
  await refuses(used, renderTar([itself]), 'ARCHIVE_INVALID')
})

test('B14 more or fewer layers than diff IDs', { skip }, async (t) => {
  const used = await createUsedStore(t)
  const more = legacyArchive({ layers: [layer, layer], config: configOf([layer]) })
  await refuses(used, more, 'IMAGE_CONFIG_INVALID')
  await refuses(
    used,
    legacyArchive({ layers: [layer], config: configOf([layer, layer]) }),
    'IMAGE_CONFIG_INVALID',
  )
  await refuses(used, legacyArchive({ layers: [], config: configOf([]) }), 'IMAGE_CONFIG_INVALID')
})

test('B15 a layer that is not what its diff ID says', { skip }, async (t) => {
  const used = await createUsedStore(t)
  const others = [layerOf({ path: 'hello', content: '##' })]
  await refuses(used, legacyArchive({ layers: [layer], config: configOf(others) }), 'IMAGE_DIGEST_MISMATCH')
})

test('B15 a config that is not what its name says', { skip }, async (t) => {
  const used = await createUsedStore(t)
  const entries = legacyEntries([{ layers: [layer] }])
  const wrong = entries.map((entry) =>
    entry.path.endsWith('.json') && entry.path.length > 20
      ? { ...entry, content: configOf([layer], { a: 1 }) }
      : entry,
  )
  await refuses(used, renderTar(wrong), 'IMAGE_DIGEST_MISMATCH')
})

test('B15 a blob that is not what its name says', { skip }, async (t) => {
  const blob: TarEntry = { path: `blobs/sha256/${sha256('a')}`, content: 'b' }
  await refuses(await createUsedStore(t), renderTar([blob]), 'IMAGE_DIGEST_MISMATCH')
})

test('B16 a config of 100 MB: refused, and never in memory', { skip }, async (t) => {
  const used = await createUsedStore(t)
  const block = Buffer.alloc(100_000, ' ')
  const head = renderTar([{ path: 'hello.json', content: Buffer.alloc(100_000_000) }]).subarray(0, 512)
  const rest = withManifest(JSON.stringify([{ Config: 'hello.json', Layers: ['l.tar'] }]))
  async function* huge(): AsyncGenerator<Uint8Array> {
    yield head
    for (let sent = 0; sent < 100_000_000; sent += block.length) yield block
    yield Buffer.alloc(Math.ceil(100_000_000 / 512) * 512 - 100_000_000)
    // What withManifest() has besides the small config, which would replace the large one.
    yield rest.subarray(512 + Math.ceil(configOf([layer]).length / 512) * 512)
  }
  globalThis.gc?.()
  const before = process.memoryUsage().rss
  await refuses(used, huge(), 'IMAGE_CONFIG_INVALID')
  assert.ok(process.memoryUsage().rss - before < 64 * 2 ** 20)
})

test('B16 a config that nests 100,000 deep', { skip }, async (t) => {
  const used = await createUsedStore(t)
  const deep = Buffer.from(`${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`)
  await refuses(used, legacyArchive({ layers: [layer], config: deep }), 'IMAGE_CONFIG_INVALID')
  await refuses(used, withManifest('['.repeat(100_000)), 'ARCHIVE_INVALID')
})

test('an archive with too many entries, or one that is too large', { skip }, async (t) => {
  const entries = Array.from({ length: 200 }, (_, index) => ({ path: `file-${index}`, content: 'x' }))
  await refuses(await createUsedStore(t, { archiveEntries: 100 }), renderTar(entries), 'ARCHIVE_INVALID')
  await refuses(await createUsedStore(t, { archiveBytes: 50_000 }), renderTar(entries), 'IMAGE_TOO_LARGE')
})

test('an image with more layers than work, or of too many bytes', { skip }, async (t) => {
  const layers = Array.from({ length: 129 }, (_, index) => layerOf({ path: 'file', content: String(index) }))
  await refuses(await createUsedStore(t), legacyArchive({ layers }), 'IMAGE_LAYER_INVALID')
  const large = archiveOfLayer({ path: 'file', content: Buffer.alloc(300_000) })
  await refuses(await createUsedStore(t, { unpackedBytes: 200_000 }), large, 'IMAGE_TOO_LARGE')
  const many = archiveOfLayer(...Array.from({ length: 50 }, (_, index) => ({ path: `f${index}` })))
  await refuses(await createUsedStore(t, { layerEntries: 40 }), many, 'IMAGE_TOO_LARGE')
})

test('an archive with devices, or with something after its end', { skip }, async (t) => {
  const used = await createUsedStore(t)
  await refuses(
    used,
    renderTar([{ path: 'null', type: 'char', deviceMajor: 1, deviceMinor: 3 }]),
    'ARCHIVE_INVALID',
  )
  await refuses(used, Buffer.concat([good, Buffer.from('more')]), 'ARCHIVE_INVALID')
  await used.store.receive(body(Buffer.concat([good, Buffer.alloc(8192)])))
})

test('keys such as __proto__ in a config reach nothing', { skip }, async (t) => {
  const { store } = await createUsedStore(t)
  const text = JSON.stringify({
    architecture: '',
    os: 'linux',
    config: { Cmd: null, ExposedPorts: { '80/tcp': {} } },
    rootfs: { diff_ids: [`sha256:${sha256(layer)}`] },
  }).replaceAll('"ExposedPorts":{', '"__proto__":{"polluted":1},"ExposedPorts":{"__proto__":{"polluted":1},')
  const image = await store.receive(body(legacyArchive({ layers: [layer], config: Buffer.from(text) })))
  assert.deepEqual(image.config.exposedPorts, [{ port: 80, protocol: 'tcp' }])
  assert.equal(({} as { polluted?: number }).polluted, undefined)
  assert.equal((image.config as { polluted?: number }).polluted, undefined)
})

test('a planted symlink in the place of staging work is never followed', { skip }, async (t) => {
  const { store, root } = await createUsedStore(t)
  const outside = await createDirectory(t)
  await mkdir(join(outside, 'kept'))
  await symlink(outside, join(root, 'store', 'staging', 'planted'))
  await store.collect(() => ({ live: new Set(), names: new Set() }))
  assert.deepEqual(await readdir(join(root, 'store', 'staging')), [])
  assert.deepEqual(await readdir(outside), ['kept'])
})
