/**
 * What a function can see and do, asked from inside of real containers of every runtime: the probes of the threat
 * model under their numbers (docs/security.md). probe.py tells, this file says what must be told.
 */
import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { defaultLimits } from '../../src/runtime/container.ts'
import { ID_BASE } from '../../src/values/id-map.ts'
import { enterNamespaces, missingFor } from '../net/namespace.ts'
import { createWorld, missingRuntime, prepareTree, requirements, type World } from './world.ts'

const python = '/usr/bin/python3.11'
const mib = 1024 * 1024

if (missingFor(requirements) === undefined) await prepareTree()
if (enterNamespaces(import.meta.filename, requirements)) {
  for (const name of ['runc', 'crun'] as const) {
    const missing =
      missingRuntime(name) ??
      (process.arch === 'x64' ? undefined : 'the numbers of calls are those of x86-64')
    describe(name, missing === undefined ? {} : { skip: missing }, () => suite(name))
  }
}

/** The probe's answers: objects whose shape each test knows. */
type Answers = Record<string, any>

function suite(name: 'runc' | 'crun'): void {
  let world: World
  const outside = createServer()
  let probed: Record<'process' | 'files' | 'calls' | 'network', Answers>
  before(async () => {
    process.env.FAAS_TEST_SECRET = 'of the daemon'
    world = await createWorld(name)
    await new Promise<void>((resolve) => outside.listen(8080, '::', resolve))
    const { stdout, stderr } = await world.runToEnd({
      argv: [python, '/probe.py', 'process,files,calls,network'],
      limits: { ...defaultLimits, tmpBytes: 8 * mib },
    })
    assert.equal(stderr, '')
    probed = JSON.parse(stdout)
  })
  after(async () => {
    outside.close()
    await world?.[Symbol.asyncDispose]()
  })

  /** The answers of some calls, which must all be denied with one errno. */
  const denied = (answers: Answers, names: readonly string[], errno: string | RegExp): void => {
    for (const key of names) {
      const answer = String(answers[key])
      if (typeof errno === 'string') assert.equal(answer, errno, key)
      else assert.match(answer, errno, key)
    }
  }
  const allDenied = (answers: Answers, errno: string | RegExp) => denied(answers, Object.keys(answers), errno)

  test('P01 all five capability sets are empty', () => {
    const none = '0000000000000000'
    assert.deepEqual(probed.process.capabilities, {
      CapInh: none,
      CapPrm: none,
      CapEff: none,
      CapBnd: none,
      CapAmb: none,
    })
  })

  test('P02 no new privileges, and a seccomp filter', () => {
    assert.deepEqual(probed.process.flags, { NoNewPrivs: '1', Seccomp: '2' })
  })

  test('P03 root inside is not root outside', () => {
    assert.deepEqual(probed.process.uidMap, ['0', String(ID_BASE), '65536'])
  })

  test('P04 a setuid program gains nothing', async () => {
    const user = { uid: 1000, gid: 1000, additionalGids: [] }
    const { stdout } = await world.runToEnd({ argv: ['/setuid/id', '-u'], user })
    assert.equal(stdout, '1000\n')
  })

  test('P05 P06 P07 no namespace can be made or joined', () => {
    const made = [
      'unshareUser',
      'unshareNet',
      'unshareMount',
      'cloneUser',
      'cloneNet',
      'clonePid',
      'cloneHigh',
    ]
    denied(probed.calls, [...made, 'setns'], 'EPERM')
    denied(probed.calls, ['clone3'], 'ENOSYS')
    assert.equal(probed.calls.clonePlain, 'ok')
  })

  test('P08 P09 nothing can be mounted, unmounted or made the root', () => {
    const mounts = ['mount', 'remount', 'umount', 'fsopen', 'openTree', 'moveMount', 'chroot', 'pivotRoot']
    denied(probed.calls, mounts, 'EPERM')
  })

  test('P10 no device can be made, a FIFO can', () => {
    denied(probed.calls, ['mknodBlock', 'mknodAtCharacter'], 'EPERM')
    assert.equal(probed.calls.fifo, 'ok')
  })

  test('P11 P12 /dev has the standard nodes and nothing else', () => {
    const standard = 'fd full null ptmx random shm stderr stdin stdout tty urandom zero'.split(' ')
    // A link to /proc/kcore, which is masked.
    const found = probed.files.devices.filter((device: string) => device !== 'core')
    assert.deepEqual(found, standard)
    assert.deepEqual(probed.files.shm, [])
  })

  test('P13 P14 P17 the settings of the kernel cannot be written and /sys is empty', () => {
    allDenied(probed.files.kernel, /^(EROFS|EACCES|EPERM|ENOENT)$/)
    assert.deepEqual(probed.files.sys, [])
  })

  test('P15 a function is killed before the host and cannot lower its score', () => {
    assert.equal(probed.process.oomScore, 500)
    assert.equal(probed.process.lowerOomScore, 'EACCES')
  })

  test('P16 the cgroups above are not visible', () => {
    for (const line of String(probed.process.cgroup).trim().split('\n')) assert.match(line, /:\/$/)
  })

  test("P18 what tells of the host's memory, keys and timers cannot be read", () => {
    allDenied(probed.files.masked, /^(empty|EACCES|EPERM|ENOENT)$/)
  })

  test('P19 only own processes are visible, and a kill of all reaches nobody else', () => {
    assert.deepEqual(probed.process.pids, [1])
    assert.equal(probed.process.killAll, 'ESRCH')
  })

  test('P20 neither the environment nor the host name nor the mounts tell of the daemon', async () => {
    const { stdout } = await world.runToEnd({
      argv: ['/bin/busybox', 'sh', '-c', 'env; hostname; cat /proc/1/environ'],
    })
    assert.doesNotMatch(stdout, /FAAS_TEST_SECRET|NODE|of the daemon/)
    const mounted = ['/', '/dev', '/dev/shm', '/proc', '/tmp']
    const inside = new Set<string>(probed.process.mounts)
    for (const path of mounted) assert.ok(inside.has(path), path)
    for (const path of inside) assert.match(path, /^\/($|dev($|\/)|proc($|\/)|tmp$)/)
  })

  test('P21 the root and /dev are read-only', () => {
    allDenied(probed.files.writes, 'EROFS')
  })

  test('P22 P59 /tmp ends at its size and at its number of files, and programs run from it', () => {
    assert.equal(probed.files.tmp.answer, 'ENOSPC')
    assert.ok(probed.files.tmp.bytes <= 8 * mib && probed.files.tmp.bytes > 7 * mib)
    assert.equal(probed.files.tmpInodes.answer, 'ENOSPC')
    assert.ok(probed.files.tmpInodes.files <= 16_384)
    assert.equal(probed.files.tmpMode, '0o41777')
    assert.equal(probed.files.tmpRun, 0)
  })

  test('P23 a function starts with the descriptors 0, 1 and 2', () => {
    assert.deepEqual(probed.process.descriptors, [0, 1, 2])
  })

  test('P24 the parent of the root is the root', () => {
    assert.equal(probed.process.upStaysIn, true)
  })

  test('P26 P27 the calls that few need and many break are refused', () => {
    const calls = `ioUring bpf perf userfaultfd keyctl addKey kexec initModule openByHandle ptrace processVmReadv
      pidfdGetfd swapon reboot clockSettime quotactl personality`
    denied(probed.calls, calls.trim().split(/\s+/), 'EPERM')
    denied(probed.calls, ['futureCall', 'messageQueue'], 'ENOSYS')
  })

  test('P28 sockets are UNIX, IPv4 or IPv6', () => {
    allDenied(probed.network.families, 'EAFNOSUPPORT')
    assert.equal(probed.network.socketpair, 'ok')
  })

  test('P29 the calls of other architectures end the process', () => {
    denied(probed.calls, ['int80', 'x32'], 'killed 31')
  })

  test('P30 P31 P32 P33 the network namespace is empty: its own lo, no way out, no names, no UNIX sockets', () => {
    assert.deepEqual(probed.network.interfaces, ['lo'])
    const { '127.0.0.1:8080': ipv4, '[::1]:8080': ipv6, ...others } = probed.network.reach
    // Something listens there, outside.
    for (const own of [ipv4, ipv6]) assert.match(own, /^(ECONNREFUSED|ENETUNREACH|EADDRNOTAVAIL)$/)
    allDenied(others, 'ENETUNREACH')
    assert.notEqual(probed.network.resolve, 'ok')
    assert.equal(probed.network.unixSockets, 0)
  })

  test('P36 P37 no socket can be made a listener', () => {
    allDenied(probed.network.listeners, 'EPERM')
  })

  test('P39 no send opens a connection', () => {
    allDenied(probed.network.fastOpen, 'EPERM')
  })

  test("P40 P41 no ioctl asks about the host's interfaces, and those of files work", () => {
    allDenied(probed.network.ioctls, 'EPERM')
    assert.equal(probed.network.fionread, 'ok')
    assert.equal(probed.network.fionbio, 'ok')
  })

  test('P42 a socket can be tuned and not turned', () => {
    allDenied(probed.network.options, 'ENOSYS')
    allDenied(probed.network.optionsHigh, 'ENOSYS')
    assert.deepEqual([probed.network.noDelay, probed.network.keepAlive], ['ok', 'ok'])
  })

  test('P51 a fork bomb ends at the limit of processes', async () => {
    const program = `
import os, time
children = 0
try:
    while children < 1000:
        if os.fork() == 0: time.sleep(60)
        children += 1
except OSError as error: print(children, type(error).__name__, flush=True)
os._exit(0)`
    const { stdout } = await world.runToEnd({
      argv: [python, '-c', program],
      limits: { ...defaultLimits, pids: 16 },
    })
    assert.equal(stdout, '15 BlockingIOError\n')
  })

  test('P52 a container that takes more memory than its limit is killed', async () => {
    const { signal, stdout } = await world.runToEnd({
      argv: [python, '-c', 'print("start", flush=True); b = b"x" * (200 << 20); print("end")'],
      limits: { ...defaultLimits, memoryBytes: 64 * mib },
    })
    assert.deepEqual({ signal, stdout }, { signal: 9, stdout: 'start\n' })
  })

  test('P53 what lies in /tmp and /dev/shm counts as memory', async () => {
    for (const path of ['/tmp/x', '/dev/shm/x']) {
      const fill = `f = open("${path}", "wb", buffering=0)\nfor i in range(60): f.write(bytes(1 << 20))`
      const program = `b = b"x" * (20 << 20)\n${fill}\nprint("end")`
      const { stdout } = await world.runToEnd({
        argv: [python, '-c', program],
        limits: { ...defaultLimits, memoryBytes: 32 * mib },
      })
      assert.equal(stdout, '', path)
    }
  })

  test('P56 P58 files, core dumps and locked memory are limited', () => {
    assert.deepEqual(probed.process.openFiles, { descriptors: 1024, answer: 'EMFILE' })
    const { CORE, FSIZE, MEMLOCK, NOFILE } = probed.process.limits
    assert.deepEqual(
      { CORE, FSIZE, MEMLOCK, NOFILE },
      { CORE: [0, 0], FSIZE: [256 * mib, 256 * mib], MEMLOCK: [65536, 65536], NOFILE: [1024, 1024] },
    )
  })
}
