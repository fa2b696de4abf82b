import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { findMountPoints, type MountPoints, resolveDirectory } from './mount-points.ts'

/** A tree from paths: `dir/`, `file`, `link -> target`. */
function tree(t: TestContext, ...entries: readonly string[]): string {
  const root = mkdtempSync(join(tmpdir(), 'faasd-mount-points-'))
  t.after(() => rmSync(root, { recursive: true, force: true }))
  for (const entry of entries) {
    const [path = '', target] = entry.split(' -> ')
    const place = join(root, path)
    mkdirSync(path.endsWith('/') ? place : dirname(place), { recursive: true })
    if (target !== undefined) symlinkSync(target, place)
    else if (!path.endsWith('/')) writeFileSync(place, 'content')
  }
  return root
}

const find = (root: string, volumes: readonly string[], workingDir = '/'): Promise<MountPoints> =>
  findMountPoints(root, { volumes, workingDir }, process.getuid?.() ?? 0)
const paths = (list: readonly { readonly path: string }[]): string[] => list.map(({ path }) => path)

test('an image without any directory gets what servers expect, and a place for the files of /etc', async (t) => {
  const found = await find(tree(t), [])
  assert.deepEqual(paths(found.points), ['/run', '/var/tmp'])
  assert.deepEqual(
    found.directories.map(({ path, mode }) => `${path} ${mode.toString(8)}`),
    ['/etc 755', '/run 755', '/var 755', '/var/tmp 1777'],
  )
  assert.equal(found.etc, '/etc')
})

test('links are followed within the root, dangling ones to what has to be made', async (t) => {
  const root = tree(t, 'var/run -> /run', 'etc -> usr/etc', 'usr/etc/', 'data -> ../../srv/data', 'up -> ..')
  const found = await find(root, ['/data', '/up/up/more'])
  assert.deepEqual(paths(found.points), ['/more', '/run', '/srv/data', '/var/tmp'])
  assert.equal(found.etc, '/usr/etc')
  assert.deepEqual(paths(found.directories), [
    '/more',
    '/run',
    '/srv',
    '/srv/data',
    '/usr',
    '/usr/etc',
    '/var',
    '/var/tmp',
  ])
})

test('parents that are there keep their modes in the layer above', async (t) => {
  const root = tree(t, 'home/app/', 'etc/passwd')
  chmodSync(join(root, 'home/app'), 0o2700)
  const { directories } = await find(root, ['/home/app/data/deep'])
  const modes = Object.fromEntries(directories.map(({ path, mode }) => [path, mode.toString(8)]))
  assert.deepEqual(
    [modes['/home'], modes['/home/app'], modes['/home/app/data'], modes['/home/app/data/deep']],
    ['755', '2700', '755', '755'],
  )
})

test("B23 volumes at the root, in the kernel's file systems, through loops and files, and too long ones are left out", async (t) => {
  const root = tree(
    t,
    'file',
    'loop -> loop',
    'p -> /proc/1',
    'self -> /',
    'dead -> /file/x',
    'proc/',
    'control.sock',
  )
  const long = `/${'x'.repeat(300)}`
  const deep = `/${'d/'.repeat(2000)}`
  const hostile = [
    '/',
    '//',
    '/proc',
    '/proc/sys',
    '/sys/fs',
    '/dev/shm',
    '/tmp',
    '/control.sock',
    '/control.sock/x',
  ]
  const led = [
    '/file',
    '/file/x',
    '/loop',
    '/p',
    '/p/root',
    '/self',
    '/self/proc',
    '/dead',
    '/new/../etc',
    long,
    deep,
  ]
  const found = await find(root, [...hostile, ...led])
  assert.deepEqual(paths(found.points), ['/run', '/var/tmp'])
  assert.deepEqual(paths(found.directories), ['/etc', '/run', '/var', '/var/tmp'])
})

test('a volume in another one is copied with it, also when neither is there', async (t) => {
  const { points, directories } = await find(tree(t), ['/data', '/data/sub', '/dat'])
  assert.deepEqual(paths(points), ['/dat', '/data', '/run', '/var/tmp'])
  assert.deepEqual(points.find(({ path }) => path === '/data')?.content.entries, 1)
  assert.ok(paths(directories).includes('/data/sub'))
})

test('a volume in /tmp has a tmpfs of its own, and no directory is made for it', async (t) => {
  const { points, directories } = await find(tree(t, 'tmp/cache/file'), ['/tmp/cache', '/tmp/other'])
  assert.deepEqual(paths(points), ['/run', '/tmp/cache', '/tmp/other', '/var/tmp'])
  assert.ok(points.every(({ content }) => content.entries === 0))
  assert.ok(!paths(directories).some((path) => path.startsWith('/tmp')))
})

test('content is counted; what cannot be copied is said, or no longer there where nobody asked for it', async (t) => {
  const root = tree(t, 'data/a', 'data/b/c', 'odd/', 'run/leftover', 'var/cache/big', 'var/log/app/x')
  execFileSync('mkfifo', [join(root, 'odd/fifo'), join(root, 'run/fifo')])
  writeFileSync(join(root, 'var/cache/big'), Buffer.alloc(5 << 20))
  const { points } = await find(root, ['/data', '/odd'])
  const content = Object.fromEntries(points.map((point) => [point.path, point.content]))
  assert.deepEqual(content['/data'], { bytes: 14, entries: 3, copyable: true })
  assert.equal(content['/odd']?.copyable, false)
  assert.deepEqual(content['/run'], { bytes: 0, entries: 0, copyable: true })
  assert.deepEqual(content['/var/log'], { bytes: 7, entries: 2, copyable: true })
  assert.equal(content['/var/cache'], undefined)
})

test('a working directory that is not there is made', async (t) => {
  const { directories } = await find(tree(t), [], '/srv/app')
  assert.ok(paths(directories).includes('/srv/app'))
})

test('an /etc that is no directory is left alone', async (t) => {
  const found = await find(tree(t, 'etc'), [])
  assert.equal(found.etc, undefined)
  assert.ok(!paths(found.directories).includes('/etc'))
})

test('resolveDirectory() stays within the root whatever links say', async (t) => {
  const root = tree(t, 'a -> ../../../../..', 'b -> /a/b2', 'c/', 'd -> c/../../../c')
  assert.deepEqual(await resolveDirectory(root, '/a/a/a'), { path: '/', missing: false })
  assert.deepEqual(await resolveDirectory(root, '/b/x'), { path: '/b2/x', missing: true })
  assert.deepEqual(await resolveDirectory(root, '/d'), { path: '/c', missing: false })
})
