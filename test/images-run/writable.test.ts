/**
 * `--writable`, on every runtime: the image's root can be written to, what is written is the instance's memory, and
 * nothing of it is left, however instance and daemon end.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import type { TarEntry } from '../images/tar.ts'
import { createPlace, missingRuntime, type Place, runtimes } from '../servers/place.ts'
import { agentImage, ask, mountsIn } from './agent.ts'

const mib = 1024 * 1024
const patience = { timeoutMs: 60_000, intervalMs: 300 }

const files: readonly TarEntry[] = [
  { path: 'opt', type: 'directory' },
  { path: 'opt/app', type: 'directory', uid: 1000, gid: 1000 },
  { path: 'opt/app/state', content: 'as built', uid: 1000, gid: 1000, mode: 0o640 },
  { path: 'opt/app/old', type: 'directory' },
  { path: 'opt/app/old/file', content: 'old' },
  { path: 'data', type: 'directory', uid: 70, gid: 70, mode: 0o750 },
  { path: 'data/file', content: 'of the image' },
]

/** Fills /big in steps of 1 MiB: how many went in, and what ended it. */
const fill = (steps: number): string => `
written, block, file = 0, b"x" * (1 << 20), os.open("/big", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
while written < ${steps} and (ending := error_of(os.write, file, block)) == "ok": written += 1
os.close(file)
answer = [written, ending]`

for (const runtime of runtimes) {
  describe(`--writable on ${runtime}`, { skip: missingRuntime(runtime) }, () => {
    let place: Place
    let image: string
    before(async () => {
      place = await createPlace(runtime)
      image = await agentImage(files, { Volumes: { '/data': {}, '/new': {} } })
      await place.deploy('writer', image, '--writable', '--memory', '128Mi', '--max', '1', '--idle', '1h')
    })
    after(() => place[Symbol.asyncDispose]())

    const memoryBytes = async (name: string): Promise<number> => {
      const url = `http://localhost/api/functions/${name}/stats`
      const { stdout } = await place.lab.server.exec([
        'curl',
        '-s',
        '--unix-socket',
        '/run/faasd/api.sock',
        url,
      ])
      return (JSON.parse(stdout) as { memory_bytes: number }).memory_bytes
    }
    /** Mounts in bundles, and bundles of a function. */
    const traces = (name: string): Promise<string> =>
      place.lab.server.sh(
        `cd /var/lib/faasd/bundles; findmnt -rno TARGET | grep faas-${name}- || true; ls | grep faas-${name}- || true`,
      )
    const leavesNothing = (name: string) =>
      eventually(`nothing is left of ${name}`, async () => assert.equal(await traces(name), ''), patience)

    test('every file and directory of the image can be changed, and new ones made', async () => {
      const code = `
import shutil
def put(path, text):
    with open(path, "w") as file: file.write(text)
def renew(path):
    shutil.rmtree(path)
    os.mkdir(path)
answer = [error_of(put, path, "new") for path in "/a /etc/b /usr/c /opt/app/state /app/agent.py /data/d /new/e".split()]
answer += [error_of(os.unlink, "/data/file"), error_of(renew, "/opt/app/old"), os.listdir("/opt/app/old")]
answer += [error_of(os.chown, "/opt/app", 70, 70), error_of(os.rename, "/opt/app/state", "/opt/app/moved")]
found = os.stat("/opt/app/moved")
answer += [open("/opt/app/moved").read(), found.st_uid, oct(found.st_mode), os.stat("/").st_uid, oct(os.stat("/").st_mode)]`
      assert.deepEqual(await ask(place, 'writer', code), [
        ...['ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok'],
        ...['ok', 'ok', [], 'ok', 'ok'],
        ...['new', 1000, '0o100640', 0, '0o40755'],
      ])
    })

    test("volumes are part of the layer, the platform's mounts are as ever", async () => {
      const points = await mountsIn(place, 'writer')
      for (const path of ['/tmp', '/run', '/var/tmp', '/dev/shm', '/etc/hosts'])
        assert.ok(points.includes(path), path)
      for (const path of ['/data', '/new']) assert.ok(!points.includes(path), path)
      const code = `answer = [error_of(open, "/etc/hosts", "w"), error_of(os.mkdir, "/proc/x"), error_of(open, "/dev/x", "w")]`
      assert.deepEqual(await ask(place, 'writer', code), ['EROFS', 'ENOENT', 'EROFS'])
    })

    test("what is written is the function's memory, and a write beyond half of that fails", async () => {
      const before = await memoryBytes('writer')
      assert.deepEqual(await ask(place, 'writer', fill(30)), [30, 'ok'])
      const after = await memoryBytes('writer')
      assert.ok(after - before > 20 * mib && after - before < 50 * mib, `${before} and then ${after}`)
      const [written, ending] = await ask<[number, string]>(place, 'writer', fill(100))
      assert.equal(ending, 'ENOSPC')
      assert.ok(written > 40 && written <= 64, `${written} MiB`)
      assert.equal(await ask(place, 'writer', 'answer = error_of(os.unlink, "/big")'), 'ok')
    })

    test('another instance begins with the image as it was', async () => {
      await ask(place, 'writer', 'answer = open("/mark", "w").write("x")')
      await place.lab.server.exec(['kill', '-9', String(await place.initOf('writer'))])
      const look =
        'answer = [os.path.exists("/mark"), open("/opt/app/state").read(), open("/data/file").read()]'
      // The connection that is being accepted by an instance while it dies is lost with it.
      await eventually(
        'another instance serves',
        async () => assert.deepEqual(await ask(place, 'writer', look), [false, 'as built', 'of the image']),
        patience,
      )
    })

    test('an instance keeps its files when the daemon is killed, and leaves nothing when it ends with it', async () => {
      await ask(place, 'writer', 'answer = open("/mark", "w").write("x")')
      const daemon = async () => (await place.lab.server.sh(`pgrep -of 'daemon/main[.]ts'`)).trim()
      const serves = async (marked: boolean) =>
        eventually(
          'it serves',
          async () => assert.equal(await ask(place, 'writer', 'answer = os.path.exists("/mark")'), marked),
          patience,
        )
      await place.lab.server.exec(['kill', '-9', await daemon()])
      await serves(true)
      const [first = ''] = (await traces('writer')).split('\n')
      assert.match(first, /\/faas-writer-[0-9a-f]{8}\/(rootfs|upper)$/)
      const init = await place.initOf('writer')
      await eventually('the daemon is back', daemon, patience)
      await place.lab.server.exec(['kill', '-9', await daemon(), String(init)])
      await serves(false)
      await eventually(
        'the first bundle is gone',
        async () => assert.ok(!(await traces('writer')).includes(first.replace(/\/[^/]+$/, ''))),
        patience,
      )
      await place.remove('writer')
      await leavesNothing('writer')
    })

    test('on the fd contract each connection has a layer of its own', async () => {
      const handler = await agentImage(files, { Env: ['CONTRACT=fd'], User: '1000:1000' })
      assert.equal((await place.deploy('handler', handler, '--writable', '--memory', '64Mi')).contract, 'fd')
      const code = `
answer = [open("/opt/app/state").read(), error_of(open, "/opt/app/new", "x"), error_of(open, "/new", "x")]
open("/opt/app/state", "w").write("changed")`
      for (let call = 0; call < 3; call++)
        assert.deepEqual(await ask(place, 'handler', code), ['as built', 'ok', 'EACCES'])
      await place.remove('handler')
      await leavesNothing('handler')
    })
  })
}
