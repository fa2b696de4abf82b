/** What the process that unpacks layers can do, seen from inside and from outside. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chown, lstat, mkdir, readFile, readlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { exec } from '../../src/host/exec.ts'
import { openUnpackNamespace } from '../../src/images/unpack-namespace.ts'
import { inUnpackRoot } from '../../src/images/unpack-root.ts'
import { ID_BASE, ID_COUNT } from '../../src/values/id-map.ts'
import { body, createDirectory, createTestStore, layerOf, legacyArchive, needsRoot } from './fixtures.ts'

const skip = needsRoot

/** Starts a shell where tar would run. */
async function startInside(t: TestContext, script: string) {
  const outer = await createDirectory(t)
  const layer = join(outer, 'private', 'layer')
  await mkdir(layer, { recursive: true, mode: 0o700 })
  await chown(layer, ID_BASE, ID_BASE)
  await writeFile(join(outer, 'secret'), 'secret')
  const namespace = await openUnpackNamespace()
  const [command, ...args] = inUnpackRoot(['sh', '-c', script])
  const child = spawn(command, args, { cwd: layer, stdio: ['pipe', 'pipe', 'pipe', namespace.fd] })
  t.after(() => child.kill('SIGKILL'))
  await namespace.close()
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (output += String(chunk)))
  return { child, layer, outer, output: () => output }
}

async function runInside(t: TestContext, script: string): Promise<{ output: string; layer: string }> {
  const { child, layer, output } = await startInside(t, script)
  await once(child, 'close')
  return { output: output(), layer }
}

test('inside there is the layer, programs, and no other file of the host', { skip }, async (t) => {
  const { output } = await runInside(
    t,
    'ls /; ls -A /layer; for d in /etc /proc /var /root /home /tmp /sys /dev; do ls $d; done',
  )
  const [listing = ''] = output.split('ls: ')
  assert.deepEqual(
    listing
      .trim()
      .split('\n')
      .filter((each) => !['bin', 'lib', 'lib64', 'usr'].includes(each)),
    ['layer'],
  )
  assert.equal(output.match(/No such file or directory/g)?.length, 8)
})

test('inside nothing but the layer can be written, and nothing of it is the root of the host', {
  skip,
}, async (t) => {
  const { output, layer } = await runInside(
    t,
    'id -u; touch /layer/x && echo written; touch /usr/x || echo refused; stat -c %u /usr; mkdir /usr/bin/y || echo refused',
  )
  assert.match(output, /^0\nwritten\n/)
  assert.equal(output.match(/refused/g)?.length, 2)
  assert.match(output, /^65534$/m)
  const made = await lstat(join(layer, 'x'))
  assert.deepEqual([made.uid, made.gid], [ID_BASE, ID_BASE])
})

test('inside there are three capabilities, no more to be had, and none that mounts', { skip }, async (t) => {
  const { output } = await runInside(
    t,
    'setpriv --dump; mount -n -t tmpfs none /layer || echo refused; unshare --user true || echo refused; mknod /layer/n c 1 3 || echo refused',
  )
  assert.match(
    output,
    /Capability bounding set: (?=.*\bchown\b)(?=.*\bdac_override\b)(?=.*\bfowner\b)[a-z_]+,[a-z_]+,[a-z_]+$/m,
  )
  assert.match(output, /no_new_privs: 1/)
  assert.equal(output.match(/refused/g)?.length, 3)
})

test('from outside it is an ordinary id with namespaces of its own', { skip }, async (t) => {
  const { child, output } = await startInside(t, 'echo ready; exec cat')
  await eventually('the shell', () => assert.match(output(), /ready/))
  // unshare waits for the process that it forked.
  const children = await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')
  const inner = `/proc/${children.trim()}`
  const status = await readFile(`${inner}/status`, 'utf8')
  assert.match(status, new RegExp(`^Uid:\t${ID_BASE}\t${ID_BASE}\t${ID_BASE}\t${ID_BASE}$`, 'm'))
  assert.match(status, /^CapEff:\t000000000000000b$/m)
  assert.match(status, /^NoNewPrivs:\t1$/m)
  const map = (await readFile(`${inner}/uid_map`, 'utf8')).trim().split(/\s+/).map(Number)
  assert.deepEqual(map, [0, ID_BASE, ID_COUNT])
  for (const kind of ['user', 'mnt', 'net', 'ipc', 'uts', 'pid']) {
    assert.notEqual(await readlink(`${inner}/ns/${kind}`), await readlink(`/proc/self/ns/${kind}`), kind)
  }
  const limits = await readFile(`${inner}/limits`, 'utf8')
  assert.match(limits, /^Max open files +256 /m)
  assert.match(limits, /^Max core file size +0 /m)
  child.stdin?.end()
  await once(child, 'close')
})

test('a layer unpacks to what umoci makes of it', {
  skip: skip || (await missing('umoci', 'skopeo')),
}, async (t) => {
  const { store } = await createTestStore(t)
  const directory = await createDirectory(t)
  const lower = layerOf(
    { path: 'a/', type: 'directory', mode: 0o711, uid: 3, gid: 4, mtime: 1000 },
    { path: 'a/f', content: 'f', mode: 0o640, uid: 1, gid: 2, mtime: 2000 },
    { path: 'a/gone', content: 'gone' },
    { path: 'b/', type: 'directory', mtime: 3000 },
    { path: 'b/hidden', content: 'hidden' },
    { path: 'link', type: 'symlink', target: '../../a/f' },
    { path: 'hard', type: 'hardlink', target: 'a/f' },
  )
  const upper = layerOf(
    { path: 'a/', type: 'directory', mode: 0o755, uid: 3, gid: 4, mtime: 4000 },
    { path: 'a/.wh.gone', content: '' },
    { path: 'a/new', content: 'new', mode: 0o4755, mtime: 5000 },
    { path: 'b/', type: 'directory', mtime: 3000 },
    { path: 'b/.wh..wh..opq', content: '' },
    { path: 'b/own', content: 'own', mtime: 6000 },
    { path: 'fifo', type: 'fifo', mode: 0o600, mtime: 7000 },
  )
  const archive = legacyArchive({ layers: [lower, upper], tags: ['x:latest'] })
  await writeFile(join(directory, 'archive.tar'), archive)
  await exec('skopeo', [
    '--insecure-policy',
    '--tmpdir',
    directory,
    'copy',
    `docker-archive:${directory}/archive.tar`,
    `oci:${directory}/oci:x`,
  ])
  await exec('umoci', ['raw', 'unpack', '--image', `${directory}/oci:x`, `${directory}/reference`])
  const image = await store.receive(body(archive))
  const rootfs = await store.mountRootfs('x' as never, image)

  const ours = await describe(rootfs, ID_BASE)
  const theirs = await describe(join(directory, 'reference'), 0)
  for (const own of [...ours.keys(), ...theirs.keys()]) {
    if (!/^\.($|\/(proc|dev|tmp|control\.sock|etc|run|var)($|\/))/.test(own)) continue
    ours.delete(own)
    theirs.delete(own)
  }
  // The one difference that is meant: set-id bits.
  assert.match(theirs.get('./a/new') ?? '', / 4755 /)
  theirs.set('./a/new', (theirs.get('./a/new') ?? '').replace(' 4755 ', ' 755 '))
  assert.deepEqual(Object.fromEntries(ours), Object.fromEntries(theirs))
})

async function missing(...programs: string[]): Promise<string | false> {
  for (const program of programs) {
    const found = await exec('sh', ['-c', `command -v ${program}`], { okCodes: [0, 1, 127] })
    if (found.code !== 0) return `needs ${program}, the reference to compare with`
  }
  return false
}

/** Kind, mode, owner, time, target and content of every file, by name. */
async function describe(directory: string, idBase: number): Promise<Map<string, string>> {
  const { stdout } = await exec('find', ['.', '-printf', '%p\t%y\t%m\t%U\t%G\t%Ts\t%l\n'], { cwd: directory })
  const described = new Map<string, string>()
  for (const line of stdout.split('\n').filter((each) => each !== '')) {
    const [path = '', kind, mode, uid, gid, time, target] = line.split('\t')
    const content = kind === 'f' ? await readFile(join(directory, path), 'utf8') : target
    described.set(path, `${kind} ${mode} ${Number(uid) - idBase}:${Number(gid) - idBase} ${time} ${content}`)
  }
  return described
}
