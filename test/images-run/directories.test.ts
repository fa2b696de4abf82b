/**
 * Where an image can write although it is read-only, and which files in it are the platform's, on every runtime: looked
 * at from inside.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { TarEntry } from '../images/tar.ts'
import { createPlace, missingRuntime, type Place, runtimes } from '../servers/place.ts'
import { agentImage, ask, mountsIn } from './agent.ts'

/** What every image has. The base has no /var/cache and no /var/log worth speaking of. */
const always = ['/', '/dev', '/dev/shm', '/etc/hostname', '/etc/hosts', '/proc', '/run', '/tmp', '/var/tmp']
const usual = ['/var/cache', '/var/log']
const mib = 1024 * 1024

const files: readonly TarEntry[] = [
  { path: 'data', type: 'directory', uid: 70, gid: 71, mode: 0o1770 },
  { path: 'data/file', content: 'of the image', uid: 72, gid: 73, mode: 0o640 },
  { path: 'data/link', type: 'symlink', target: '/etc/passwd' },
  { path: 'data/private', type: 'directory', uid: 1000, gid: 1000, mode: 0o700 },
  { path: 'data/private/key', content: 'secret', uid: 1000, gid: 1000, mode: 0o600 },
  { path: 'home', type: 'directory' },
  { path: 'home/app', type: 'directory', uid: 1000, gid: 1000, mode: 0o700 },
  { path: 'linked', type: 'symlink', target: '/srv/real' },
  { path: 'etc/hosts', type: 'symlink', target: '/data/file' },
  { path: 'etc/hostname', content: 'of-the-build\n' },
  { path: 'etc/resolv.conf', type: 'symlink', target: '../run/systemd/resolve/stub-resolv.conf' },
]
const volumes = ['/data', '/data/private', '/data/new', '/home/app/store', '/linked', '/absent/deep']
const hostile = `/ // /. /proc /proc/sys /sys /dev /dev/shm /tmp /control.sock /app/agent.py /../.. ../../x x loop
  /loop /toproc /toproc/sys /todev /up/up /up/proc /app/agent.py/x`
const hostileFiles: readonly TarEntry[] = [
  { path: 'loop', type: 'symlink', target: 'loop' },
  { path: 'toproc', type: 'symlink', target: '/proc' },
  { path: 'todev', type: 'symlink', target: '../../dev' },
  { path: 'up', type: 'symlink', target: '../../../..' },
]
const volumesOf = (paths: readonly string[]) => ({
  Volumes: Object.fromEntries(paths.map((path) => [path, {}])),
})

for (const runtime of runtimes) {
  describe(`directories of an image on ${runtime}`, { skip: missingRuntime(runtime) }, () => {
    let place: Place
    before(async () => {
      place = await createPlace(runtime)
      await place.deploy('dirs', await agentImage(files, volumesOf(volumes)))
    })
    after(() => place[Symbol.asyncDispose]())

    test('there is a tmpfs for what servers write and for each volume, whether the image has it or not', async () => {
      const points = (await mountsIn(place, 'dirs')).filter((point) => !usual.includes(point))
      assert.deepEqual(points, [...always, '/absent/deep', '/data', '/home/app/store', '/srv/real'].sort())
      const writes = `
def put(directory):
    with open(directory + "/written", "w") as file: file.write("x")
places = "/tmp /run /var/tmp /dev/shm /data /data/new /home/app/store /linked /srv/real /absent/deep".split()
answer = [[place, error_of(put, place)] for place in places]
answer += [[place, error_of(put, place)] for place in "/ /app /etc /home/app /absent /srv /var".split()]`
      for (const [where = '', result] of await ask<string[][]>(place, 'dirs', writes)) {
        const readOnly = ['/', '/app', '/etc', '/home/app', '/absent', '/srv', '/var']
        assert.equal(result, readOnly.includes(where) ? 'EROFS' : 'ok', where)
      }
    })

    test("a volume has the owner, mode and content that the image has there; a new one is root's", async () => {
      const look = `
def look(path):
    found = os.lstat(path)
    return [path, oct(found.st_mode), found.st_uid, found.st_gid]
paths = ["/data", "/data/file", "/data/link", "/data/private", "/data/private/key", "/data/new"]
paths += ["/home/app", "/home/app/store", "/absent", "/absent/deep", "/run", "/var/tmp", "/tmp"]
answer = [look(path) for path in paths]
answer.append([open("/data/file").read(), os.readlink("/data/link"), open("/data/private/key").read()])`
      assert.deepEqual(await ask(place, 'dirs', look), [
        ['/data', '0o41770', 70, 71],
        ['/data/file', '0o100640', 72, 73],
        ['/data/link', '0o120777', 0, 0],
        ['/data/private', '0o40700', 1000, 1000],
        ['/data/private/key', '0o100600', 1000, 1000],
        ['/data/new', '0o40755', 0, 0],
        ['/home/app', '0o40700', 1000, 1000],
        ['/home/app/store', '0o40755', 0, 0],
        ['/absent', '0o40755', 0, 0],
        ['/absent/deep', '0o40755', 0, 0],
        ['/run', '0o40755', 0, 0],
        ['/var/tmp', '0o41777', 0, 0],
        ['/tmp', '0o41777', 0, 0],
        ['of the image', '/etc/passwd', 'secret'],
      ])
    })

    test('each of them ends at its size and at its number of files', async () => {
      const code = `
def of(path):
    found = os.statvfs(path)
    return [found.f_blocks * found.f_frsize, found.f_files]
answer = {path: of(path) for path in "/tmp /run /var/tmp /dev/shm /data /srv/real".split()}`
      for (const [path, [bytes = 0, inodes = 0]] of Object.entries(
        await ask<Record<string, number[]>>(place, 'dirs', code),
      )) {
        assert.ok(bytes > 0 && bytes <= 64 * mib, path)
        assert.ok(inodes > 0 && inodes <= 16_384, path)
      }
    })

    test("hosts, hostname and resolv.conf are the platform's, whatever the image has there", async () => {
      const code = `
import socket
names = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]
answer = [open(name).read() for name in names] + [os.path.islink(name) for name in names]
answer += [error_of(open, name, "a") for name in names]
answer += [socket.gethostname(), socket.gethostbyname("localhost"), socket.gethostbyname("dirs")]`
      const [hosts, hostname, resolver, ...rest] = await ask<string[]>(place, 'dirs', code)
      assert.match(hosts ?? '', /^127\.0\.0\.1\s+localhost dirs$/m)
      assert.match(hosts ?? '', /^::1\s+localhost .*dirs$/m)
      assert.equal(hostname, 'dirs\n')
      assert.doesNotMatch(resolver ?? 'nameserver', /nameserver/)
      const [nowhere, readOnly] = [false, 'EROFS']
      const links = [nowhere, nowhere, nowhere, readOnly, readOnly, readOnly]
      assert.deepEqual(rest, [...links, 'dirs', '127.0.0.1', '127.0.0.1'])
    })

    test('/dev has the links and nodes that programs expect', async () => {
      const code = `
links = {name: os.readlink("/dev/" + name) for name in ["fd", "stdin", "stdout", "stderr"]}
nodes = all(os.path.exists("/dev/" + name) for name in "null zero full random urandom tty".split())
os.write(os.open("/dev/stdout", os.O_WRONLY), b"to the log\\n")
os.write(os.open("/proc/self/fd/2", os.O_WRONLY), b"")
answer = [links, nodes, os.readlink("/proc/self") == str(os.getpid())]`
      const links = {
        fd: '/proc/self/fd',
        stdin: '/proc/self/fd/0',
        stdout: '/proc/self/fd/1',
        stderr: '/proc/self/fd/2',
      }
      assert.deepEqual(await ask(place, 'dirs', code), [links, true, true])
    })

    test('B23 volumes that lead anywhere else are harmless', async () => {
      const paths = hostile.split(/\s+/)
      await place.deploy('hostile', await agentImage(hostileFiles, volumesOf(paths)))
      const points = (await mountsIn(place, 'hostile')).filter((point) => !usual.includes(point))
      assert.deepEqual(points, always)
      const mounted = await place.lab.server.sh('findmnt -rno TARGET | grep ^/var/lib/faasd/')
      for (const point of mounted.trim().split('\n'))
        assert.match(point, /^\/var\/lib\/faasd\/images\/[a-z]+\/versions\/[^/]+\/rootfs$/)
      await place.remove('hostile')
    })

    test('the fd contract has the same directories and files', async () => {
      const image = await agentImage(files, { ...volumesOf(volumes), Env: ['CONTRACT=fd'], User: '70:71' })
      assert.equal((await place.deploy('handler', image)).contract, 'fd')
      const points = (await mountsIn(place, 'handler')).filter((point) => !usual.includes(point))
      const own = ['/absent/deep', '/control.sock', '/data', '/home/app/store', '/srv/real']
      // The control socket is unlinked as soon as it has been used.
      const plain = points.map((point) => point.replace(/\/\/deleted$/, ''))
      assert.deepEqual(plain, [...always, ...own].sort())
      const code = `answer = [error_of(open, "/data/mine", "w"), error_of(open, "/absent/deep/x", "w"), os.uname().nodename]`
      assert.deepEqual(await ask(place, 'handler', code), ['ok', 'EACCES', 'handler'])
      await place.remove('handler')
    })

    test('a volume that does not fit is refused at deploy, and the options that help are named', async () => {
      const big: TarEntry[] = [
        { path: 'big', type: 'directory' },
        { path: 'big/file', content: Buffer.alloc(6 * mib) },
      ]
      const image = await agentImage(big, volumesOf(['/big']))
      const words = await place.deployFails('big', image, '--tmp', '4Mi')
      assert.match(words, /7 MiB in the volume \/big.*--writable.*--tmp 7Mi/s)
      await place.deploy('big', image, '--tmp', '8Mi')
      assert.equal(await ask(place, 'big', 'answer = os.path.getsize("/big/file")'), 6 * mib)
      await place.remove('big')
    })
  })
}
