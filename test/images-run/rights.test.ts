/**
 * What an instance of the `listen` contract may do, on every runtime: P01 as it is there. Root holds, in its own user
 * namespace, what an entrypoint needs that changes user; another USER holds nothing; and none of it counts outside.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { ID_BASE } from '../../src/values/id-map.ts'
import type { TarEntry } from '../images/tar.ts'
import { createPlace, missingRuntime, type Place, runtimes } from '../servers/place.ts'
import { agentImage, ask } from './agent.ts'

/** CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID and SETPCAP. */
const given = '00000000000001fb'
const none = '0000000000000000'

const files: readonly TarEntry[] = [
  { path: 'srv', type: 'directory' },
  { path: 'srv/private', content: 'of another user', uid: 70, gid: 70, mode: 0o600 },
]
const volumes = { Volumes: { '/work': {} } }

const capabilities = `
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status"))
answer = {name: status[name] for name in status if name.startswith("Cap") or name in ("NoNewPrivs", "Seccomp")}`

/** In a child, so that the server stays what it is. */
const inChild = `
def in_child(work):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, error_of(work).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return os.read(read, 100).decode()`

for (const runtime of runtimes) {
  describe(`rights in an instance on ${runtime}`, { skip: missingRuntime(runtime) }, () => {
    let place: Place
    before(async () => {
      place = await createPlace(runtime)
      await place.deploy('root', await agentImage(files, volumes), '--idle', '1h')
      const low = await agentImage(files, { ...volumes, User: 'app', ExposedPorts: { '80/tcp': {} } })
      await place.deploy('user', low, '--idle', '1h')
    })
    after(() => place[Symbol.asyncDispose]())

    test('P01 root holds eight capabilities and can get no other, and another user holds none', async () => {
      const flags = { NoNewPrivs: '1', Seccomp: '2' }
      assert.deepEqual(await ask(place, 'root', capabilities), {
        ...{ CapInh: none, CapPrm: given, CapEff: given, CapBnd: given, CapAmb: none },
        ...flags,
      })
      assert.deepEqual(await ask(place, 'user', capabilities), {
        ...{ CapInh: none, CapPrm: none, CapEff: none, CapBnd: given, CapAmb: none },
        ...flags,
      })
    })

    test('root can do what an entrypoint does that goes on as another user', async () => {
      const code = `${inChild}
import signal, subprocess, time
def drop():
    os.setgroups([70])
    os.setgid(70)
    os.setuid(70)
    open("/srv/private").close()
def kill_other():
    child = os.fork()
    if child == 0:
        os.setuid(70)
        time.sleep(60)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
os.mkdir("/work/mine")
answer = [error_of(os.chown, "/work/mine", 70, 70), error_of(os.chmod, "/work/mine", 0o2700), error_of(open, "/work/mine/x", "w")]
answer += [error_of(open, "/srv/private"), in_child(drop), in_child(kill_other)]`
      assert.deepEqual(await ask(place, 'root', code), ['ok', 'ok', 'ok', 'ok', 'ok', 'ok'])
    })

    test('another user can do none of that, and binds a port below 1024 all the same', async () => {
      const code = `${inChild}
import socket
answer = [error_of(os.chown, "/work", 1000, 1000), error_of(open, "/srv/private"), in_child(lambda: os.setuid(0))]
answer += [in_child(lambda: os.setgroups([0])), os.environ["PORT"], os.getuid()]
answer.append(error_of(socket.socket(socket.AF_INET6, socket.SOCK_STREAM).bind, ("::", 81)))`
      assert.deepEqual(await ask(place, 'user', code), [
        'EPERM',
        'EACCES',
        'EPERM',
        'EPERM',
        '80',
        1000,
        'ok',
      ])
    })

    test('no capability counts outside of the user namespace', async () => {
      const code = `${inChild}
import ctypes, resource, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *arguments):
    if getattr(libc, function)(*arguments) < 0: raise OSError(ctypes.get_errno(), function)
answer = {
    "an id that is not mapped": in_child(lambda: os.setuid(70000)),
    "a file for such an id": error_of(os.chown, "/work", 70000, 70000),
    "a device": error_of(os.mknod, "/work/sda", 0o60600, os.makedev(8, 0)),
    "a mount": error_of(call, "mount", b"x", b"/work", b"tmpfs", 0, None),
    "an umount": error_of(call, "umount2", b"/etc/hosts", 2),
    "a root": error_of(os.chroot, "/work"),
    "a name": error_of(call, "sethostname", b"x", 1),
    "a namespace": error_of(call, "unshare", 0x10000000),
    "a raw socket": error_of(socket.socket, socket.AF_INET6, socket.SOCK_RAW, 58),
    "a priority": error_of(os.nice, -1),
    "more descriptors": error_of(call, "prlimit", 0, resource.RLIMIT_NOFILE, (ctypes.c_uint64 * 2)(1 << 19, 1 << 19), None),
    "a setting of the kernel": error_of(open, "/proc/sys/kernel/core_pattern", "w"),
    "the owner of one": error_of(os.chown, "/proc/sys/kernel/core_pattern", 0, 0),
    "a clock": error_of(call, "clock_settime", 0, bytes(16)),
    "a module": error_of(call, "delete_module", b"x", 0),
    "the score": error_of(os.write, os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1"),
    "the host's processes": error_of(os.kill, 2 ** 22 - 1, 9),
}`
      const refused = await ask<Record<string, string>>(place, 'root', code)
      assert.deepEqual(refused, {
        'an id that is not mapped': 'EINVAL',
        'a file for such an id': 'EINVAL',
        'a device': 'EPERM',
        'a mount': 'EPERM',
        'an umount': 'EPERM',
        'a root': 'EPERM',
        'a name': 'EPERM',
        'a namespace': 'EPERM',
        'a raw socket': 'EPERM',
        'a priority': 'EPERM',
        'more descriptors': 'EPERM',
        'a setting of the kernel': 'EROFS',
        'the owner of one': 'EROFS',
        'a clock': 'EPERM',
        'a module': 'EPERM',
        'the score': 'EACCES',
        "the host's processes": 'ESRCH',
      })
      const init = await place.initOf('root')
      const seen = await place.lab.server.sh(
        `readlink /proc/self/ns/user /proc/${init}/ns/user; cat /proc/${init}/uid_map; grep ^Uid: /proc/${init}/status`,
      )
      const [ours, its, map = '', uids = ''] = seen.trim().split('\n')
      assert.notEqual(ours, its)
      assert.deepEqual(map.trim().split(/\s+/), ['0', String(ID_BASE), '65536'])
      assert.deepEqual(new Set(uids.split('\t').slice(1)), new Set([String(ID_BASE)]))
    })

    test('a server may hold many descriptors, and its files end with the memory and not with a signal', async () => {
      const code = `
import resource
def of(name): return resource.getrlimit(getattr(resource, "RLIMIT_" + name))
answer = [of("NOFILE")[0], of("NOFILE")[1], of("CORE"), of("MEMLOCK")[1]]
answer.append(len([os.dup(2) for _ in range(3000)]))`
      const [soft = 0, hard, core, locked, opened] = await ask<number[]>(place, 'user', code)
      assert.ok(soft > 4096 && soft <= 65_536)
      assert.deepEqual([hard, core, locked, opened], [soft, [0, 0], 65_536, 3000])
    })
  })
}
