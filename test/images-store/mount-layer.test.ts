/** The layer that the store makes above an image, from its making to its removal. */
import assert from 'node:assert/strict'
import { lstat, mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { exec } from '../../src/host/exec.ts'
import { isMountPoint, mountPointsBelow } from '../../src/images/mounts.ts'
import { createImageStore } from '../../src/images/store.ts'
import { ID_BASE } from '../../src/values/id-map.ts'
import { parseFunctionName } from '../../src/values/names.ts'
import { body, configOf, createTestStore, layerOf, legacyArchive, needsRoot } from './fixtures.ts'

const skip = needsRoot
const name = parseFunctionName('app')
const other = parseFunctionName('other')
const layers = [
  layerOf(
    { path: 'etc/', type: 'directory', mode: 0o750, uid: 3, gid: 4 },
    { path: 'etc/passwd', content: '' },
    { path: 'etc/hosts', type: 'symlink', target: '/etc/passwd' },
    { path: 'home/', type: 'directory', mode: 0o700, uid: 1000, gid: 1000 },
  ),
]
const archive = legacyArchive({
  layers,
  config: configOf(layers, { config: { Cmd: ['/x'], Volumes: { '/home/data': {}, '/proc/x': {} } } }),
})
const described = async (path: string): Promise<string> => {
  const { mode, uid, gid } = await lstat(path)
  return `${(mode & 0o7777).toString(8)} ${uid - ID_BASE}:${gid - ID_BASE}`
}

test('a mounted root has what is missing, parents as the image has them, and nothing where the kernel rules', {
  skip,
}, async (t) => {
  const { store } = await createTestStore(t)
  const image = await store.receive(body(archive))
  await assert.rejects(store.mountPoints(image), { code: 'NOT_FOUND' })
  const rootfs = await store.mountRootfs(name, image)
  const found = await Promise.all(
    ['etc', 'home', 'home/data', 'run', 'var', 'var/tmp', 'etc/hosts'].map((path) =>
      described(join(rootfs, path)),
    ),
  )
  assert.deepEqual(found, [
    '750 3:4',
    '700 1000:1000',
    '755 0:0',
    '755 0:0',
    '755 0:0',
    '1777 0:0',
    '644 0:0',
  ])
  assert.equal(await readFile(join(rootfs, 'etc/hosts'), 'utf8'), '')
  assert.equal((await lstat(join(rootfs, 'etc/passwd'))).isFile(), true)
  assert.deepEqual(await readdir(join(rootfs, 'proc')), [])
  const { points, etc } = await store.mountPoints(image)
  assert.equal(etc, '/etc')
  assert.deepEqual(
    points.map(({ path, uid, gid, mode }) => [path, uid, gid, mode]),
    [
      ['/home/data', 0, 0, 0o755],
      ['/run', 0, 0, 0o755],
      ['/var/tmp', 0, 0, 0o1777],
    ],
  )
})

test('the functions of an image share its layer, which goes with the image', { skip }, async (t) => {
  const { store, root } = await createTestStore(t)
  const image = await store.receive(body(archive))
  const made = join(root, 'store', 'mount-layers')
  await Promise.all([store.mountRootfs(name, image), store.mountRootfs(other, image)])
  assert.deepEqual(await readdir(made), [image.id.slice('sha256:'.length)])
  assert.deepEqual(await readdir(join(root, 'store', 'mounts')), [])
  await store.collect(() => ({ live: new Set([image.id]), names: new Set([name, other]) }))
  assert.equal((await readdir(made)).length, 1)
  await store.collect(() => ({ live: new Set(), names: new Set() }))
  assert.deepEqual(await readdir(made), [])
  assert.deepEqual(await mountPointsBelow(root), [])
})

test('a store begins without what a crash has left of a look, and mounts anew what an older faasd has mounted', {
  skip,
}, async (t) => {
  const { store, root } = await createTestStore(t)
  const image = await store.receive(body(archive))
  const rootfs = await store.mountRootfs(name, image)
  const left = join(root, 'store', 'mounts', 'look-x', 'root')
  await mkdir(left, { recursive: true })
  await exec('mount', ['-t', 'tmpfs', 'left', left])
  await exec('rm', ['-r', join(root, 'store', 'mount-layers', image.id.slice('sha256:'.length))])
  const next = await createImageStore({ root, exec })
  assert.deepEqual(await readdir(join(root, 'store', 'mounts')), [])
  assert.equal(await next.mountRootfs(name, image), rootfs)
  assert.equal(await isMountPoint(rootfs), true)
  assert.equal(await described(join(rootfs, 'home/data')), '755 0:0')
  assert.deepEqual(await mountPointsBelow(root), [rootfs])
})
