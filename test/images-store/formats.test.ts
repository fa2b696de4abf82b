import assert from 'node:assert/strict'
import { lstat, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { ID_BASE } from '../../src/values/id-map.ts'
import { renderTar, type TarEntry } from '../images/tar.ts'
import {
  body,
  configOf,
  createTestStore,
  layerOf,
  legacyArchive,
  legacyEntries,
  needsRoot,
  sha256,
  thisArchitecture,
} from './fixtures.ts'

const skip = needsRoot
const bottom = layerOf(
  { path: 'etc/', type: 'directory' },
  { path: 'etc/name', content: 'bottom', uid: 5, gid: 6 },
)
const top = layerOf({ path: 'hello', content: '#!', mode: 0o755 })
const other = layerOf({ path: 'other', content: 'x' })
const layers = [bottom, top]

const indexType = 'application/vnd.oci.image.index.v1+json'
const manifestType = 'application/vnd.oci.image.manifest.v1+json'

interface Descriptor {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
  readonly platform?: { readonly architecture: string; readonly os: string }
  readonly annotations?: Readonly<Record<string, string>>
}

/** Builds an OCI layout blob by blob. */
function createLayout() {
  const entries: TarEntry[] = [{ path: 'oci-layout', content: '{"imageLayoutVersion":"1.0.0"}' }]
  const add = (bytes: Buffer, mediaType: string, more: Partial<Descriptor> = {}): Descriptor => {
    entries.push({ path: `blobs/sha256/${sha256(bytes)}`, content: bytes })
    return { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length, ...more }
  }
  const addJson = (value: object, mediaType: string, more: Partial<Descriptor> = {}): Descriptor =>
    add(Buffer.from(JSON.stringify(value)), mediaType, more)
  const addImage = (
    plain: readonly Buffer[],
    pack: (layer: Buffer) => Buffer = (layer) => layer,
    more: Partial<Descriptor> = {},
    config = configOf(plain),
  ): Descriptor =>
    addJson(
      {
        schemaVersion: 2,
        config: add(config, 'application/vnd.oci.image.config.v1+json'),
        layers: plain.map((layer) => add(pack(layer), 'application/vnd.oci.image.layer.v1.tar')),
      },
      manifestType,
      more,
    )
  const finish = (manifests: readonly Descriptor[], more: TarEntry[] = []): Buffer =>
    renderTar([
      ...entries,
      ...more,
      { path: 'index.json', content: JSON.stringify({ schemaVersion: 2, manifests }) },
    ])
  return { add, addJson, addImage, finish }
}

function layoutOf(pack?: (layer: Buffer) => Buffer): Buffer {
  const layout = createLayout()
  return layout.finish([layout.addImage(layers, pack)])
}

/** Since Docker 25: a layout, and a manifest.json that names its blobs. */
function dockerArchive(): Buffer {
  const layout = createLayout()
  const image = layout.addImage(layers)
  const manifest = [
    {
      Config: `blobs/sha256/${sha256(configOf(layers))}`,
      RepoTags: ['fibonacci:latest'],
      Layers: layers.map((layer) => `blobs/sha256/${sha256(layer)}`),
    },
  ]
  return layout.finish([image], [{ path: 'manifest.json', content: JSON.stringify(manifest) }])
}

/** Before Docker 25, where a layer that occurred before is a link to the first. */
function linkedArchive(): Buffer {
  const entries = legacyEntries([{ layers: [bottom, top, bottom] }])
  const files = entries.filter(({ path }) => path.endsWith('/layer.tar'))
  const [first, , last] = files
  return renderTar(
    entries.map((entry) =>
      entry === last ? { path: entry.path, type: 'symlink' as const, target: `../${first?.path}` } : entry,
    ),
  )
}

const forms: Record<string, Buffer> = {
  'Docker before 25': legacyArchive({ layers, tags: ['fibonacci:latest'] }),
  'Docker since 25': dockerArchive(),
  'an OCI layout': layoutOf(),
  'an OCI layout with gzip layers': layoutOf((layer) => gzipSync(layer)),
  'an OCI layout with zstd layers': layoutOf((layer) => zstdCompressSync(layer)),
  'Docker before 25, the archive compressed with gzip': gzipSync(legacyArchive({ layers })),
}

for (const [form, archive] of Object.entries(forms)) {
  test(`receive() reads ${form}`, { skip }, async (t) => {
    const { store, tree, root } = await createTestStore(t)
    const image = await store.receive(body(archive))
    assert.equal(image.id, `sha256:${sha256(configOf(layers))}`)
    assert.deepEqual(
      image.layers,
      layers.map((layer) => `sha256:${sha256(layer)}`),
    )
    assert.deepEqual(image.config.cmd, ['/hello'])
    assert.equal(await readFile(join(tree(sha256(bottom)), 'etc/name'), 'utf8'), 'bottom')
    const owner = await lstat(join(tree(sha256(bottom)), 'etc/name'))
    assert.deepEqual([owner.uid, owner.gid], [ID_BASE + 5, ID_BASE + 6])
    assert.equal(await readFile(join(tree(sha256(top)), 'hello'), 'utf8'), '#!')
    assert.deepEqual(await readdir(join(root, 'store', 'staging')), [])
    assert.deepEqual(await store.load(image.id), image)
  })
}

test('B11 receive() follows a layer.tar that is a symlink to a sibling in the archive', {
  skip,
}, async (t) => {
  const { store, tree } = await createTestStore(t)
  const image = await store.receive(body(linkedArchive()))
  assert.equal(image.layers.length, 3)
  assert.equal(image.layers[0], image.layers[2])
  assert.equal(await readFile(join(tree(sha256(bottom)), 'etc/name'), 'utf8'), 'bottom')
})

test('receive() picks one of several images by its name, with or without tag', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  const archive = legacyArchive(
    { layers, tags: ['registry.example/team/fibonacci:1.0', 'fibonacci:latest'] },
    { layers: [other], tags: ['other:2.0'] },
  )
  const wanted = `sha256:${sha256(configOf([other]))}`
  assert.equal((await store.receive(body(archive), { pick: 'other' })).id, wanted)
  assert.equal((await store.receive(body(archive), { pick: 'other:2.0' })).id, wanted)
  assert.notEqual((await store.receive(body(archive), { pick: 'fibonacci' })).id, wanted)
})

test('B08 receive() names the images of an archive when none of several is meant', { skip }, async (t) => {
  const { store, root } = await createTestStore(t)
  const archive = legacyArchive({ layers, tags: ['one:1'] }, { layers: [other], tags: ['two:1'] })
  for (const pick of [undefined, 'three']) {
    await assert.rejects(store.receive(body(archive), { pick }), (error: Error & { code: string }) => {
      assert.equal(error.code, 'IMAGE_AMBIGUOUS')
      assert.match(error.message, /one:1, two:1/)
      return true
    })
  }
  assert.deepEqual(await readdir(join(root, 'store', 'layers')), [])
})

test('receive() needs no pick for a single image, whatever it is called', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  await store.receive(body(legacyArchive({ layers, tags: ['a/b:c'] })), { pick: 'fibonacci' })
})

const foreign = thisArchitecture === 'amd64' ? 'arm64' : 'amd64'
const here = { platform: { architecture: thisArchitecture, os: 'linux' } }
const there = { platform: { architecture: foreign, os: 'linux' } }
const attestation = { platform: { architecture: 'unknown', os: 'unknown' } }

test('receive() picks the image for this machine from a multi-arch index', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  const layout = createLayout()
  const mine = layout.addImage(layers, undefined, here)
  const theirs = layout.addImage([other], undefined, there, configOf([other], {}, foreign))
  const proof = layout.addImage([other], undefined, attestation, Buffer.from('{}'))
  const archive = layout.finish([theirs, mine, proof])
  assert.equal((await store.receive(body(archive))).id, `sha256:${sha256(configOf(layers))}`)
})

test('receive() picks by name and by machine from nested indexes', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  const layout = createLayout()
  const named = (name: string) => ({
    annotations: { 'io.containerd.image.name': `docker.io/library/${name}:latest` },
  })
  const theirs = layout.addImage([other], undefined, there, configOf([other], {}, foreign))
  const one = layout.addJson(
    { schemaVersion: 2, manifests: [theirs, layout.addImage(layers, undefined, here)] },
    indexType,
    named('one'),
  )
  const two = layout.addJson(
    { schemaVersion: 2, manifests: [layout.addImage([top], undefined, here), theirs] },
    indexType,
    named('two'),
  )
  const archive = layout.finish([one, two])
  assert.equal((await store.receive(body(archive), { pick: 'one' })).id, `sha256:${sha256(configOf(layers))}`)
  assert.equal((await store.receive(body(archive), { pick: 'two' })).id, `sha256:${sha256(configOf([top]))}`)
})

test('receive() takes an image that index.json lists under two names as one', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  const layout = createLayout()
  const image = layout.addImage(layers)
  const named = (name: string) => ({ ...image, annotations: { 'io.containerd.image.name': name } })
  await store.receive(body(layout.finish([named('a:1'), named('a:2')])))
})

test('receive() says which platforms there are when this machine is not among them', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  const layout = createLayout()
  const config = configOf([other], {}, foreign)
  const archive = layout.finish([layout.addImage([other], undefined, there, config)])
  await assert.rejects(store.receive(body(archive)), { code: 'IMAGE_PLATFORM_UNSUPPORTED' })
  const single = legacyArchive({ layers: [other], config })
  await assert.rejects(store.receive(body(single)), { code: 'IMAGE_PLATFORM_UNSUPPORTED' })
})

test('receive() refuses a layer with damaged compression', { skip }, async (t) => {
  const { store, root } = await createTestStore(t)
  for (const pack of [gzipSync, zstdCompressSync]) {
    const archive = layoutOf((layer) => Buffer.from(pack(layer).subarray(0, -20)))
    await assert.rejects(store.receive(body(archive)), { code: 'IMAGE_LAYER_INVALID' })
  }
  assert.deepEqual(await readdir(join(root, 'store', 'layers')), [])
  assert.deepEqual(await readdir(join(root, 'store', 'staging')), [])
})

test('receive() checks the diff ID of a compressed layer that the store has already', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  await store.receive(body(layoutOf()))
  const layout = createLayout()
  const archive = layout.finish([layout.addImage(layers, (layer) => gzipSync(layer === top ? other : layer))])
  await assert.rejects(store.receive(body(archive)), { code: 'IMAGE_DIGEST_MISMATCH' })
})
