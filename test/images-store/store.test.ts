import assert from 'node:assert/strict'
import { lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { exec } from '../../src/host/exec.ts'
import { mountPointsBelow } from '../../src/images/mounts.ts'
import { createImageStore } from '../../src/images/store.ts'
import type { Digest } from '../../src/values/digest.ts'
import { ID_BASE } from '../../src/values/id-map.ts'
import { parseFunctionName } from '../../src/values/names.ts'
import { body, configOf, createTestStore, layerOf, legacyArchive, needsRoot, sha256 } from './fixtures.ts'

const skip = needsRoot
const name = parseFunctionName('fibonacci')
const base = layerOf({ path: 'lib/', type: 'directory' }, { path: 'lib/python', content: 'a whole Python' })
const first = layerOf({ path: 'app', content: 'first' })
const second = layerOf({ path: 'app', content: 'second' })
const archives = {
  first: legacyArchive({ layers: [base, first] }),
  second: legacyArchive({ layers: [base, second] }),
}

const storedLayers = async (root: string): Promise<string[]> =>
  (await readdir(join(root, 'store', 'layers'))).sort()
const hexes = (...layers: Buffer[]): string[] => layers.map((layer) => sha256(layer)).sort()

test('a layer that two images have is unpacked once', { skip }, async (t) => {
  const { store, root, tree } = await createTestStore(t)
  await store.receive(body(archives.first))
  const before = await lstat(join(tree(sha256(base)), 'lib/python'))
  await store.receive(body(archives.second))
  assert.deepEqual(await storedLayers(root), hexes(base, first, second))
  assert.equal((await lstat(join(tree(sha256(base)), 'lib/python'))).ino, before.ino)
})

test('receives of the same image at the same time are harmless', { skip }, async (t) => {
  const { store, root } = await createTestStore(t)
  const bodies = [archives.first, archives.second, archives.first, archives.second, archives.first]
  const images = await Promise.all(bodies.map((archive) => store.receive(body(archive))))
  assert.deepEqual(images[0], images[2])
  assert.deepEqual(await storedLayers(root), hexes(base, first, second))
  assert.deepEqual(await readdir(join(root, 'store', 'staging')), [])
})

test('receive() reports what it does', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  const steps: string[] = []
  await store.receive(body(archives.first), { onProgress: ({ step }) => steps.push(step) })
  assert.deepEqual([...new Set(steps)], ['receive', 'verify', 'unpack'])
})

test('mountRootfs() shows the layers read-only and is idempotent; selectRootfs() swaps versions', {
  skip,
}, async (t) => {
  const { store, root } = await createTestStore(t)
  const one = await store.receive(body(archives.first))
  const two = await store.receive(body(archives.second))
  const pathOne = await store.mountRootfs(name, one)
  assert.equal(await store.mountRootfs(name, one), pathOne)
  assert.equal(pathOne, join(root, 'images', name, 'versions', one.id.slice(7, 19), 'rootfs'))
  assert.equal((await mountPointsBelow(root)).length, 1)
  await store.selectRootfs(name, one.id)
  const selected = join(root, 'images', name, 'rootfs')
  assert.equal(await readFile(join(selected, 'app'), 'utf8'), 'first')
  assert.equal(await readFile(join(selected, 'lib/python'), 'utf8'), 'a whole Python')
  await assert.rejects(writeFile(join(selected, 'new'), ''), { code: 'EROFS' })
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8')
  const line = mountinfo.split('\n').find((each) => each.includes(` ${pathOne} `)) ?? ''
  assert.match(line, / ro,nosuid,nodev/)

  await store.mountRootfs(name, two)
  await store.selectRootfs(name, two.id)
  assert.equal(await readlink(selected), `versions/${two.id.slice(7, 19)}/rootfs`)
  assert.equal(await readFile(join(selected, 'app'), 'utf8'), 'second')
  // The old version still serves who has it.
  assert.equal(await readFile(join(pathOne, 'app'), 'utf8'), 'first')

  await store.releaseRootfs(name, two.id)
  assert.deepEqual(await readdir(join(root, 'images', name, 'versions')), [two.id.slice(7, 19)])
  assert.equal(await readFile(join(selected, 'app'), 'utf8'), 'second')
  await store.releaseRootfs(name)
  await store.releaseRootfs(name)
  assert.deepEqual(await readdir(join(root, 'images')), [])
  assert.deepEqual(await mountPointsBelow(root), [])
})

test('an image of 128 layers is received and mounted, with layers that repeat', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  const layers = Array.from({ length: 126 }, (_, index) =>
    layerOf({ path: 'last', content: String(index) }, { path: `file-${index}`, content: '' }),
  )
  const image = await store.receive(body(legacyArchive({ layers: [...layers, base, layers[0] as Buffer] })))
  const rootfs = await store.mountRootfs(name, image)
  assert.equal(await readFile(join(rootfs, 'last'), 'utf8'), '0')
  assert.equal((await readdir(rootfs)).filter((each) => each.startsWith('file-')).length, 126)
})

test('collect() removes what nothing needs and keeps what is live', { skip }, async (t) => {
  const { store, root } = await createTestStore(t)
  const one = await store.receive(body(archives.first))
  const two = await store.receive(body(archives.second))
  await store.mountRootfs(name, one)
  await store.mountRootfs(name, two)
  await store.mountRootfs(parseFunctionName('gone'), one)
  await store.collect(() => ({ live: new Set([one.id]), names: new Set([name]) }))
  assert.deepEqual(await storedLayers(root), hexes(base, first))
  assert.deepEqual(await readdir(join(root, 'images')), [name])
  assert.deepEqual(await readdir(join(root, 'images', name, 'versions')), [one.id.slice(7, 19)])
  await assert.rejects(store.load(two.id), { code: 'NOT_FOUND' })
  assert.deepEqual(await store.load(one.id), one)
  await store.collect(() => ({ live: new Set(), names: new Set() }))
  for (const place of ['layers', 'images', 'staging'])
    assert.deepEqual(await readdir(join(root, 'store', place)), [])
  assert.deepEqual(await readdir(join(root, 'images')), [])
  assert.deepEqual(await mountPointsBelow(root), [])
})

test('collect() removes what a crash left, and the next store goes on', { skip }, async (t) => {
  const { store, root } = await createTestStore(t)
  const one = await store.receive(body(archives.first))
  await store.mountRootfs(name, one)
  const staging = join(root, 'store', 'staging')
  await mkdir(join(staging, '0123456789abcdef', 'layers', 'x'), { recursive: true })
  await writeFile(join(staging, '0123456789abcdef', 'archive'), 'half')
  // Names that are no text, as a layer may have them.
  await writeFile(Buffer.concat([Buffer.from(`${staging}/0123456789abcdef/`), Buffer.from([0xff, 0xfe])]), '')
  await mkdir(join(root, 'store', 'layers', 'f'.repeat(64), 'tree'), { recursive: true })
  const next = await createImageStore({ root, exec })
  await next.collect(() => ({ live: new Set([one.id]), names: new Set([name]) }))
  assert.deepEqual(await readdir(staging), [])
  assert.deepEqual(await storedLayers(root), hexes(base, first))
  const rootfs = await next.mountRootfs(name, await next.load(one.id))
  assert.equal(await readFile(join(rootfs, 'app'), 'utf8'), 'first')
})

test('collect() while images arrive takes nothing away from them', { skip }, async (t) => {
  const { store } = await createTestStore(t)
  const live = new Set<Digest>()
  const names = new Set([name])
  let receiving = true
  const collecting = (async () => {
    while (receiving) await store.collect(() => ({ live: new Set(live), names: names }))
  })()
  for (let round = 0; round < 5; round++) {
    const image = await store.receive(body(round % 2 === 0 ? archives.first : archives.second))
    live.clear()
    live.add(image.id)
    const rootfs = await store.mountRootfs(name, image)
    assert.equal(await readFile(join(rootfs, 'lib/python'), 'utf8'), 'a whole Python')
    await store.selectRootfs(name, image.id)
  }
  receiving = false
  await collecting
})

test('collect() removes no layer while a live record cannot be read', { skip }, async (t) => {
  const { store, root } = await createTestStore(t)
  const one = await store.receive(body(archives.first))
  await writeFile(join(root, 'store', 'images', `${one.id.slice(7)}.json`), '{')
  await store.collect(() => ({ live: new Set([one.id]), names: new Set() }))
  assert.deepEqual(await storedLayers(root), hexes(base, first))
  await assert.rejects(store.load(one.id), { code: 'REGISTRY_CORRUPT' })
  // Deployed again, it is whole again.
  assert.deepEqual(await store.receive(body(archives.first)), one)
  assert.deepEqual(await store.load(one.id), one)
})

test('load() refuses the record of a newer version', { skip }, async (t) => {
  const { store, root } = await createTestStore(t)
  const id = `sha256:${'a'.repeat(64)}` as Digest
  await writeFile(join(root, 'store', 'images', `${'a'.repeat(64)}.json`), '{"version":2}')
  await assert.rejects(store.load(id), { code: 'STATE_TOO_NEW' })
})

test('a receive that is cancelled while a layer is unpacked leaves nothing and no process', {
  skip,
}, async (t) => {
  const { store, root } = await createTestStore(t)
  const large = layerOf({ path: 'large', content: Buffer.alloc(200 * 2 ** 20, 'x') })
  const cancel = new AbortController()
  const receiving = store.receive(body(legacyArchive({ layers: [large], config: configOf([large]) })), {
    signal: cancel.signal,
    onProgress: ({ step }) => {
      if (step === 'unpack') setTimeout(() => cancel.abort(), 80)
    },
  })
  await assert.rejects(receiving, { code: 'ARCHIVE_TRUNCATED' })
  const children = await readFile(`/proc/self/task/${process.pid}/children`, 'utf8')
  for (const pid of children.split(' ').filter(Boolean)) {
    assert.doesNotMatch(await readFile(`/proc/${pid}/cmdline`, 'utf8'), /layer-program|unshare/)
  }
  for (const place of ['layers', 'images', 'staging'])
    assert.deepEqual(await readdir(join(root, 'store', place)), [])
})

test('receive() says that the disk is full, and leaves nothing on it', { skip }, async (t) => {
  const { root, store } = await createTestStore(t)
  await exec('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'small', join(root, 'store', 'staging')])
  const archiveOf = (bytes: number) =>
    legacyArchive({ layers: [layerOf({ path: 'large', content: Buffer.alloc(bytes, 'x') })] })
  // The first does not fit as an archive, the second not as an archive and a layer.
  for (const bytes of [4_000_000, 2_000_000]) {
    await assert.rejects(store.receive(body(archiveOf(bytes))), { code: 'DISK_FULL' })
    assert.deepEqual(await readdir(join(root, 'store', 'staging')), [])
  }
})

test('a root that is reached through a link is known by its real path', { skip }, async (t) => {
  const { root } = await createTestStore(t)
  await symlink(root, join(root, 'link'))
  const store = await createImageStore({ root: join(root, 'link'), exec })
  const image = await store.receive(body(archives.first))
  await store.mountRootfs(name, image)
  await store.mountRootfs(name, image)
  assert.equal((await mountPointsBelow(root)).length, 1)
})

test('files in images/ that are not ours are left alone', { skip }, async (t) => {
  const { root, store } = await createTestStore(t)
  await writeFile(join(root, 'images', 'note'), 'x')
  await mkdir(join(root, 'images', name, 'kept'), { recursive: true })
  await store.collect(() => ({ live: new Set(), names: new Set() }))
  assert.deepEqual((await readdir(join(root, 'images'))).sort(), [name, 'note'])
})

test('images are read by root and by the root of containers, and by nobody else', { skip }, async (t) => {
  const { store, root } = await createTestStore(t)
  const rootfs = await store.mountRootfs(name, await store.receive(body(archives.first)))
  const readAs = (id: number, path: string) =>
    exec('setpriv', [`--reuid=${id}`, `--regid=${id}`, '--clear-groups', 'cat', path], { okCodes: [0, 1] })
  const stored = join(root, 'store', 'layers', sha256(first), 'tree', 'app')
  for (const id of [65534, ID_BASE]) assert.equal((await readAs(id, stored)).code, 1)
  assert.equal((await readAs(65534, join(rootfs, 'app'))).code, 1)
  assert.equal((await readAs(ID_BASE, join(rootfs, 'app'))).stdout, 'first')
})
