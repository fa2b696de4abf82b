import assert from 'node:assert/strict'
import { lstat, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { FaasError } from '../../values/errors.ts'
import { createResolution, renderResolvConf } from './resolution.ts'

/** A machine that has only `programs`; what is run is noted. */
async function newMachine(context: TestContext, programs: readonly string[]) {
  const root = await mkdtemp(join(tmpdir(), 'faasd-resolution-'))
  context.after(() => rm(root, { recursive: true, force: true }))
  const ran: string[] = []
  const resolution = createResolution({
    resolvConf: join(root, 'resolv.conf'),
    interfaceOrder: join(root, 'interface-order'),
    exec: async (command, args, options) => {
      if (!programs.includes(command)) throw new FaasError('PROGRAM_MISSING', command)
      ran.push([command, ...args].join(' ') + (options?.input ? ` <<< ${String(options.input).trim()}` : ''))
      return { stdout: '', stderr: '', code: 0 }
    },
  })
  return { resolution, ran, root, path: join(root, 'resolv.conf') }
}
const old = 'nameserver 192.0.2.53\nsearch home.arpa\n'

test('systemd-resolved is preferred and asked only for faas.', async (context) => {
  const { resolution, ran } = await newMachine(context, ['resolvectl', 'resolvconf'])
  const [way] = await resolution.ways({ writeResolvConf: true })
  assert.deepEqual(way, { by: 'resolvectl' })
  ran.length = 0
  await resolution.apply({ by: 'resolvectl' })
  await resolution.undo({ by: 'resolvectl' })
  assert.deepEqual(ran, [
    'resolvectl dns wg-faas fd00:faa5:0:100::1',
    'resolvectl domain wg-faas ~faas',
    'resolvectl revert wg-faas',
  ])
})

test("resolvconf is used next, under the first prefix of Debian's ranking where there is one", async (context) => {
  const { resolution, ran, root } = await newMachine(context, ['resolvconf'])
  const ways = await resolution.ways({ writeResolvConf: false })
  assert.deepEqual(ways, [{ by: 'resolvconf', record: 'wg-faas' }, { by: 'nothing' }])
  await writeFile(join(root, 'interface-order'), '# order\nlo.inet6\ntun*\neth*\n')
  const [way] = await resolution.ways({ writeResolvConf: false })
  assert.deepEqual(way, { by: 'resolvconf', record: 'tun.wg-faas' })
  ran.length = 0
  await resolution.apply({ by: 'resolvconf', record: 'wg-faas' })
  await resolution.undo({ by: 'resolvconf', record: 'wg-faas' })
  assert.deepEqual(ran, [
    'resolvconf -a wg-faas -m 0 <<< nameserver fd00:faa5:0:100::1',
    'resolvconf -d wg-faas',
  ])
})

test('without either nothing is changed unless it is allowed', async (context) => {
  const { resolution, path } = await newMachine(context, [])
  await writeFile(path, old)
  assert.deepEqual(await resolution.ways({ writeResolvConf: false }), [{ by: 'nothing' }])
  await resolution.apply({ by: 'nothing' })
  assert.equal(await readFile(path, 'utf8'), old)
})

test('resolv.conf is written once, keeps the old servers behind ours, and is put back', async (context) => {
  const { resolution, root, path } = await newMachine(context, [])
  await writeFile(path, old)
  const [way] = await resolution.ways({ writeResolvConf: true })
  assert.ok(way?.by === 'resolv.conf')
  await resolution.apply(way)
  await resolution.apply(way)
  assert.equal(await readFile(path, 'utf8'), renderResolvConf(old))
  assert.equal(await readFile(way.kept, 'utf8'), old)
  assert.equal(await resolution.undo(way), undefined)
  assert.equal(await resolution.undo(way), undefined)
  assert.equal(await readFile(path, 'utf8'), old)
  assert.deepEqual(await readdir(root), ['resolv.conf'])
})

test('a resolv.conf that is a link becomes that link again', async (context) => {
  const { resolution, root, path } = await newMachine(context, [])
  await writeFile(join(root, 'stub.conf'), old)
  await symlink('stub.conf', path)
  const [way] = await resolution.ways({ writeResolvConf: true })
  assert.ok(way)
  await resolution.apply(way)
  assert.ok((await lstat(path)).isFile())
  assert.equal(await readFile(join(root, 'stub.conf'), 'utf8'), old)
  await resolution.undo(way)
  assert.equal(await readlink(path), 'stub.conf')
  assert.deepEqual((await readdir(root)).sort(), ['resolv.conf', 'stub.conf'])
})

test('a crash before the link was replaced is undone to that link', async (context) => {
  const { resolution, root, path } = await newMachine(context, [])
  await writeFile(join(root, 'stub.conf'), old)
  await symlink('stub.conf', path)
  const [way] = await resolution.ways({ writeResolvConf: true })
  assert.ok(way?.by === 'resolv.conf')
  await symlink('stub.conf', way.kept)
  assert.equal(await resolution.undo(way), undefined)
  assert.deepEqual((await readdir(root)).sort(), ['resolv.conf', 'stub.conf'])
})

test('a resolv.conf that something else has written since is left as it is', async (context) => {
  const { resolution, path } = await newMachine(context, [])
  await writeFile(path, old)
  const [way] = await resolution.ways({ writeResolvConf: true })
  assert.ok(way)
  await resolution.apply(way)
  await writeFile(path, 'nameserver 198.51.100.1\n')
  assert.match((await resolution.undo(way)) ?? '', /left as it is/)
  assert.equal(await readFile(path, 'utf8'), 'nameserver 198.51.100.1\n')
})
