/**
 * Layers that try to write elsewhere, and whiteouts, by the numbers of the list of bad inputs: refused with nothing
 * left, or accepted and contained. What a layer means is looked at through the mounted root.
 */
import assert from 'node:assert/strict'
import { lstat, readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { ID_BASE } from '../../src/values/id-map.ts'
import { parseFunctionName } from '../../src/values/names.ts'
import type { TarEntry } from '../images/tar.ts'
import {
  archiveOfLayer,
  body,
  createTestStore,
  layerOf,
  legacyArchive,
  needsRoot,
  sha256,
  snapshot,
} from './fixtures.ts'

const skip = needsRoot
const name = parseFunctionName('fibonacci')

const dir = (path: string, more: Partial<TarEntry> = {}): TarEntry => ({
  path: `${path}/`,
  type: 'directory',
  ...more,
})
const file = (path: string, content = path, more: Partial<TarEntry> = {}): TarEntry => ({
  path,
  content,
  ...more,
})
const link = (path: string, target: string): TarEntry => ({ path, type: 'symlink', target })
const hard = (path: string, target: string): TarEntry => ({ path, type: 'hardlink', target })

async function refuses(t: TestContext, ...entries: TarEntry[]): Promise<void> {
  const { store, root } = await createTestStore(t)
  const before = await snapshot(root)
  await assert.rejects(store.receive(body(archiveOfLayer(...entries))), (error: Error & { code: string }) => {
    assert.equal(error.code, 'IMAGE_LAYER_INVALID', error.message)
    return true
  })
  assert.deepEqual(await snapshot(root), before)
}

/** The merged root of an image of these layers; everything outside of the layers' own trees is as it was. */
async function merge(t: TestContext, ...layers: (readonly TarEntry[])[]): Promise<string> {
  const { store, root } = await createTestStore(t)
  const before = await snapshot(root)
  const rendered = layers.map((entries) => layerOf(...entries))
  const image = await store.receive(body(legacyArchive({ layers: rendered })))
  const known = new Set(rendered.map((layer) => sha256(layer)))
  for (const hex of known) {
    assert.deepEqual((await readdir(join(root, 'store', 'layers', hex))).sort(), ['layer.json', 'tree'])
  }
  const after = (await snapshot(root)).filter(
    (line) => !/ \.\/store\/(layers\/[0-9a-f]{64}|images\/)/.test(line),
  )
  assert.deepEqual(after, before)
  assert.deepEqual(new Set(await readdir(join(root, 'store', 'layers'))), known)
  return store.mountRootfs(name, image)
}

/** Names in a directory of the merged root, without ours: no image here has these in its root. */
async function list(rootfs: string, path = ''): Promise<string[]> {
  const names = (await readdir(join(rootfs, path))).sort()
  const ours = ['control.sock', 'dev', 'etc', 'proc', 'run', 'tmp', 'var']
  const oursInEtc = ['hostname', 'hosts', 'resolv.conf']
  return names.filter((each) => !(path === '' ? ours : oursInEtc).includes(each))
}

for (const path of ['../v', '/../v', 'a/../../v', 'a/..', '..', './../v']) {
  test(`B25 a file named ${path}`, { skip }, (t) => refuses(t, file(path)))
}

test('B25 an absolute name is a name from the root of the layer', { skip }, async (t) => {
  const rootfs = await merge(t, [file('//etc//passwd', 'mine'), file('/./x/./y')])
  assert.equal(await readFile(join(rootfs, 'etc/passwd'), 'utf8'), 'mine')
  assert.equal(await readFile(join(rootfs, 'x/y'), 'utf8'), '/./x/./y')
})

test('B26 a file through a symlink is written where the link leads within the layer', { skip }, async (t) => {
  const rootfs = await merge(t, [
    dir('real'),
    link('relative', 'real'),
    file('relative/one'),
    link('absolute', '/real'),
    file('absolute/two'),
    link('up', '../../../../../../../../../../../../real'),
    file('up/three'),
    link('host', '/usr/bin'),
    file('host/four'),
    link('jail', '/layer'),
    file('jail/five'),
  ])
  assert.deepEqual(await list(rootfs, 'real'), ['one', 'three', 'two'])
  assert.deepEqual(await list(rootfs, 'usr/bin'), ['four'])
  assert.deepEqual(await list(rootfs, 'layer'), ['five'])
  assert.equal(await readlink(join(rootfs, 'absolute')), '/real')
})

test('B27 a hard link out of the layer', { skip }, async (t) => {
  await refuses(t, hard('h', '../v'), file('h', 'overwritten'))
  await refuses(t, hard('h', '/etc/hostname'), file('h', 'overwritten'))
  await refuses(t, link('etc', '/usr'), hard('h', 'etc/bin/tar'), file('h', 'overwritten'))
})

test('B28 a hard link to a directory whose name begins like the root', { skip }, (t) =>
  refuses(t, hard('h', '../tree-evil/s')),
)

test('B29 a chain of links upwards stays within the layer', { skip }, async (t) => {
  const rootfs = await merge(t, [
    dir('a'),
    link('a/go_up', '../'),
    link('a/b', 'go_up/../../..'),
    file('a/go_up/a/go_up/one'),
    file('a/b/two'),
    link('chain', 'a/go_up/a/b'),
    file('chain/three'),
  ])
  assert.deepEqual(await list(rootfs), ['a', 'chain', 'one', 'three', 'two'])
})

test('B29 a loop of links', { skip }, (t) => refuses(t, link('a', 'b'), link('b', 'a'), file('a/x')))

for (const path of ['/.', '..', '', '/', '.']) {
  test(`B30 a symlink named ${JSON.stringify(path)}`, { skip }, (t) =>
    refuses(t, link(path, '/etc'), file('x')),
  )
}

test('B31 across layers a symlink replaces a directory and a directory a symlink', { skip }, async (t) => {
  const lower = [dir('d'), file('d/inner'), link('l', '/etc'), dir('e'), file('e/kept')]
  const upper = [link('d', '/etc'), dir('l'), file('l/own')]
  const rootfs = await merge(t, lower, upper)
  assert.equal(await readlink(join(rootfs, 'd')), '/etc')
  assert.deepEqual(await list(rootfs, 'l'), ['own'])
  assert.deepEqual(await list(rootfs, 'e'), ['kept'])
})

test('B31 within a layer the last of several entries for a path wins', { skip }, async (t) => {
  const rootfs = await merge(t, [
    dir('a'),
    file('a/inner'),
    link('a', '/etc'),
    link('b', '/etc'),
    dir('b'),
    file('b/own'),
    link('c', '/etc/passwd'),
    file('c', 'plain'),
    file('d', 'plain'),
    dir('d'),
    ...Array.from({ length: 500 }, (_, index) => file('e', String(index))),
  ])
  assert.equal(await readlink(join(rootfs, 'a')), '/etc')
  assert.deepEqual(await list(rootfs, 'b'), ['own'])
  assert.equal(await readFile(join(rootfs, 'c'), 'utf8'), 'plain')
  assert.equal((await lstat(join(rootfs, 'd'))).isDirectory(), true)
  assert.equal(await readFile(join(rootfs, 'e'), 'utf8'), '499')
})

test('B32 a hard link to a symlink is that symlink, whatever comes later', { skip }, async (t) => {
  const { mode } = await lstat('/etc/passwd')
  const rootfs = await merge(t, [
    link('l', '/etc/passwd'),
    hard('h', 'l'),
    link('up', '/'),
    hard('k', 'up'),
    file('k/through', 'x'),
  ])
  assert.equal(await readlink(join(rootfs, 'h')), '/etc/passwd')
  assert.equal(await readFile(join(rootfs, 'through'), 'utf8'), 'x')
  const replaced = await merge(t, [link('l', '/etc/passwd'), hard('h', 'l'), file('h', 'x', { mode: 0o777 })])
  assert.equal(await readFile(join(replaced, 'h'), 'utf8'), 'x')
  assert.equal((await lstat('/etc/passwd')).mode, mode)
})

for (const mark of ['.wh.', '.wh..', '.wh...', 'sub/.wh.', 'sub/.wh..', 'sub/.wh...', '.wh.a/.wh.b']) {
  test(`B33 the whiteout ${mark}`, { skip }, (t) => refuses(t, dir('sub'), file(mark, '')))
}

test('B33 names that AUFS kept for itself are left out', { skip }, async (t) => {
  const rootfs = await merge(t, [
    dir('.wh..wh.plnk'),
    file('.wh..wh.plnk/1.2'),
    file('.wh..wh.aufs'),
    file('x'),
  ])
  assert.deepEqual(await list(rootfs), ['x'])
})

test('B34 a whiteout through a symlink, a dead link, or "..": contained', { skip }, async (t) => {
  const lower = [
    dir('etc'),
    file('etc/passwd'),
    file('etc/kept'),
    dir('real'),
    file('real/gone'),
    file('real/kept'),
  ]
  const rootfs = await merge(t, lower, [
    link('l', '/real'),
    file('l/.wh.gone', ''),
    link('dead', '/nowhere/at/all'),
    file('dead/.wh.x', ''),
  ])
  assert.deepEqual(await list(rootfs, 'real'), ['kept'])
  assert.deepEqual(await list(rootfs, 'etc'), ['kept', 'passwd'])
  await refuses(t, file('dne/../.wh.etc', ''))
})

test('B34 a whiteout below a directory that a symlink replaces later', { skip }, async (t) => {
  const rootfs = await merge(
    t,
    [dir('a'), file('a/b'), dir('etc'), file('etc/b')],
    [dir('a'), file('a/.wh.b', ''), file('a/c/.wh..wh..opq', ''), link('a', '/etc')],
  )
  assert.equal(await readlink(join(rootfs, 'a')), '/etc')
  assert.deepEqual(await list(rootfs, 'etc'), ['b'])
})

for (const place of ['before', 'after'] as const) {
  test(`B35 an opaque mark ${place} its siblings, and nested ones`, { skip }, async (t) => {
    const lower = [
      dir('a'),
      file('a/old'),
      dir('a/b'),
      file('a/b/old'),
      dir('c'),
      file('c/old'),
      dir('c/d'),
      file('c/d/old'),
    ]
    const own = [file('a/new'), dir('a/b'), file('a/b/new')]
    const marks = [file('a/.wh..wh..opq', ''), file('c/d/.wh..wh..opq', '')]
    const upper = [
      dir('a', { mode: 0o750 }),
      ...(place === 'before' ? [...marks, ...own] : [...own, ...marks]),
    ]
    const rootfs = await merge(t, lower, upper)
    assert.deepEqual(await list(rootfs, 'a'), ['b', 'new'])
    assert.deepEqual(await list(rootfs, 'a/b'), ['new'])
    assert.equal((await lstat(join(rootfs, 'a'))).mode & 0o777, 0o750)
    assert.deepEqual(await list(rootfs, 'c'), ['d', 'old'])
    assert.deepEqual(await list(rootfs, 'c/d'), [])
  })
}

test('B35 an opaque root hides all layers below', { skip }, async (t) => {
  const rootfs = await merge(
    t,
    [file('one'), dir('d'), file('d/one')],
    [file('two'), file('.wh..wh..opq', '')],
    [file('three')],
  )
  assert.deepEqual(await list(rootfs), ['three', 'two'])
})

test('B36 a whiteout of what the same layer makes anew, in either order', { skip }, async (t) => {
  const lower = [file('f', 'old'), dir('d'), file('d/old'), file('g', 'old'), dir('e'), file('e/old')]
  const upper = [
    file('.wh.f', ''),
    file('f', 'new'),
    file('.wh.d', ''),
    dir('d'),
    file('d/new'),
    file('g', 'new'),
    file('.wh.g', ''),
    file('e/new'),
    file('.wh.e', ''),
  ]
  const rootfs = await merge(t, lower, upper)
  assert.equal(await readFile(join(rootfs, 'f'), 'utf8'), 'new')
  assert.equal(await readFile(join(rootfs, 'g'), 'utf8'), 'new')
  assert.deepEqual(await list(rootfs, 'd'), ['new'])
  assert.deepEqual(await list(rootfs, 'e'), ['new'])
})

test('a whiteout hides what the layers below have, and no trace of it is listed', { skip }, async (t) => {
  const lower = [file('f'), dir('d'), file('d/x'), file('d/y'), dir('e'), file('e/x')]
  const upper = [
    file('.wh.f', ''),
    dir('d'),
    file('d/.wh.x', ''),
    file('.wh.e', ''),
    file('e/.wh.x', ''),
    file('.wh.none', ''),
  ]
  const rootfs = await merge(t, lower, upper)
  assert.deepEqual(await list(rootfs), ['d'])
  assert.deepEqual(await list(rootfs, 'd'), ['y'])
})

test('owners are kept within the namespace, set-id bits and devices are not kept at all', {
  skip,
}, async (t) => {
  const rootfs = await merge(t, [
    file('suid', 'x', { mode: 0o6755, uid: 1000, gid: 50 }),
    dir('sticky', { mode: 0o3777 }),
    file('far', 'x', { uid: 2 ** 31, gid: 2 ** 32 - 1 }),
    dir('closed', { mode: 0 }),
    file('closed/inner', 'x', { mode: 0 }),
    { path: 'null', type: 'char', deviceMajor: 1, deviceMinor: 3 },
    { path: 'zero', type: 'char', deviceMajor: 0, deviceMinor: 0 },
    { path: 'sda', type: 'block', deviceMajor: 8, deviceMinor: 0 },
    hard('sda1', 'sda'),
    { path: 'fifo', type: 'fifo' },
    file('attribute', 'x', {
      pax: { 'SCHILY.xattr.security.capability': 'x', 'SCHILY.xattr.user.overlay.opaque': 'y' },
    }),
    { path: 'old', content: 'x', mtime: 0, pax: { mtime: '-5000000000.5' } },
  ])
  const suid = await lstat(join(rootfs, 'suid'))
  assert.deepEqual([suid.mode & 0o7777, suid.uid, suid.gid], [0o755, ID_BASE + 1000, ID_BASE + 50])
  assert.equal((await lstat(join(rootfs, 'sticky'))).mode & 0o7777, 0o1777)
  const far = await lstat(join(rootfs, 'far'))
  assert.deepEqual([far.uid, far.gid], [ID_BASE + 65534, ID_BASE + 65534])
  assert.equal((await lstat(join(rootfs, 'closed'))).mode & 0o7777, 0)
  assert.equal(await readFile(join(rootfs, 'closed/inner'), 'utf8'), 'x')
  assert.equal((await lstat(join(rootfs, 'fifo'))).isFIFO(), true)
  assert.equal((await lstat(join(rootfs, 'old'))).mtimeMs, 0)
  const names = await list(rootfs)
  for (const device of ['null', 'zero', 'sda', 'sda1']) assert.equal(names.includes(device), false)
})

test('names of any bytes and any length come out as they went in', { skip }, async (t) => {
  const long = `${'d'.repeat(200)}/${'e'.repeat(200)}`
  const rootfs = await merge(t, [
    dir(long),
    file(`${long}/file`, 'long'),
    link('to', `/${long}/file`),
    hard('hard', `${long}/file`),
    file('caf\u00e9', 'composed'),
    file('cafe\u0301', 'decomposed'),
    file('new\nline', 'x'),
    file('back\\slash', 'x'),
    file('-rf', 'x'),
    file('{a,b}*?[c]', 'x'),
  ])
  assert.equal(await readFile(join(rootfs, 'hard'), 'utf8'), 'long')
  assert.equal(await readlink(join(rootfs, 'to')), `/${long}/file`)
  assert.equal(await readFile(join(rootfs, 'caf\u00e9'), 'utf8'), 'composed')
  assert.equal(await readFile(join(rootfs, 'cafe\u0301'), 'utf8'), 'decomposed')
  assert.deepEqual((await list(rootfs)).filter((each) => /[^a-z\u0080-\uffff]/.test(each)).sort(), [
    '-rf',
    'back\\slash',
    'new\nline',
    '{a,b}*?[c]',
  ])
})

test('names that no file system takes', { skip }, async (t) => {
  await refuses(t, file('x'.repeat(256)))
  await refuses(t, file(`${'x/'.repeat(3000)}y`))
})

for (const [what, entry] of Object.entries({
  'a symlink /proc': link('proc', '/tmp'),
  'a file /dev': file('dev'),
  'a FIFO /tmp': { path: 'tmp', type: 'fifo' as const },
  'a directory /control.sock': dir('control.sock'),
  'a symlink /control.sock': link('control.sock', '/etc/passwd'),
})) {
  test(`an image with ${what} is refused`, { skip }, async (t) => {
    const { store, root } = await createTestStore(t)
    const before = await snapshot(root)
    for (const layers of [[layerOf(entry)], [layerOf(entry), layerOf(file('x'))]]) {
      await assert.rejects(store.receive(body(legacyArchive({ layers }))), { code: 'IMAGE_ROOTFS_REFUSED' })
    }
    assert.deepEqual(await snapshot(root), before)
  })
}

test('an image with its own /proc, /dev, /tmp and /control.sock of the right kind is accepted', {
  skip,
}, async (t) => {
  const rootfs = await merge(
    t,
    [link('tmp', '/x'), file('dev')],
    [file('.wh.dev', ''), dir('proc'), dir('tmp'), file('tmp/x'), file('control.sock', '')],
  )
  assert.equal((await lstat(join(rootfs, 'control.sock'))).isFile(), true)
  for (const place of ['proc', 'dev', 'tmp'])
    assert.equal((await lstat(join(rootfs, place))).isDirectory(), true)
})
