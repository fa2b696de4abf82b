/** One suite for every OCI runtime: real containers from their start to the last trace of them. */
import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { reap } from '../../src/host/native/process.ts'
import { defaultLimits } from '../../src/runtime/container.ts'
import { FaasError } from '../../src/values/errors.ts'
import { hostId } from '../../src/values/id-map.ts'
import { enterNamespaces, missingFor } from '../net/namespace.ts'
import { createWorld, giveTo, missingRuntime, prepareTree, requirements, type World } from './world.ts'

const python = '/usr/bin/python3.11'
const shell = (script: string) => ['/bin/busybox', 'sh', '-c', script]

if (missingFor(requirements) === undefined) await prepareTree()
if (enterNamespaces(import.meta.filename, requirements)) {
  for (const name of ['runc', 'crun'] as const) {
    const missing = missingRuntime(name)
    describe(name, missing === undefined ? {} : { skip: missing }, () => suite(name))
  }
}

function suite(name: 'runc' | 'crun'): void {
  let world: World
  before(async () => {
    world = await createWorld(name)
  })
  after(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  /** What must be true after every container: no process, cgroup or state of it. */
  const nothingLeft = async (): Promise<void> => {
    assert.deepEqual(await world.cgroups.list(), [])
    assert.deepEqual(await world.runtime.list(), [])
    assert.deepEqual(await readdir(world.stateRoot).catch(() => []), [])
  }

  const runtimeFailed = (words: RegExp) => (error: unknown) => {
    assert.ok(error instanceof FaasError && error.code === 'RUNTIME_FAILED', String(error))
    assert.match(error.message, words)
    return true
  }

  test('run() gives a container its argv, env, cwd, user, groups, host name and an empty stdin', async () => {
    const { stdout, stderr, code } = await world.runToEnd({
      argv: [python, '/probe.py', 'identity', 'with space', '$HOME;"\'', 'ü'],
      env: ['GREETING=hello world', 'EMPTY='],
      cwd: '/app',
      user: { uid: 1000, gid: 1000, additionalGids: [44, 100] },
      hostname: 'a-function',
    })
    assert.equal(stderr, '')
    assert.equal(code, 0)
    assert.deepEqual(JSON.parse(stdout).identity, {
      arguments: ['identity', 'with space', '$HOME;"\'', 'ü'],
      environment: {
        GREETING: 'hello world',
        EMPTY: '',
        HOME: '/home/app',
        HOSTNAME: 'a-function',
        PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      },
      directory: '/app',
      ids: [1000, 1000, 1000, 1000],
      groups: [44, 100],
      hostname: 'a-function',
      umask: 0o022,
      pid: 1,
      stdin: '',
    })
    await nothingLeft()
  })

  test('run() finds a program by the PATH of the image and answers the pid of the init', async () => {
    await using container = await world.start({
      argv: ['busybox', 'sleep', '60'],
      env: ['PATH=/nowhere:/bin'],
    })
    const status = await readFile(`/proc/${container.pid}/status`, 'utf8')
    assert.match(status, new RegExp(`^Uid:\\s+${hostId(0)}\\s`, 'm'))
    assert.match(status, /^NSpid:.*\s1$/m)
    const [found, ...others] = await world.runtime.list()
    assert.deepEqual(others, [])
    assert.deepEqual(found, {
      id: container.id,
      pid: container.pid,
      status: 'running',
      bundle: container.bundle,
    })
    assert.deepEqual(await world.cgroups.list(), [container.id])
  })

  test('run() keeps stdout and stderr apart, and both belong to the container', async () => {
    const ended = await world.runToEnd({
      argv: shell('echo out; echo err >&2; echo more > /dev/stdout; exit 7'),
    })
    assert.deepEqual(ended, { code: 7, signal: undefined, stdout: 'more\n', stderr: 'err\n' })
  })

  test("run() leaves the host's /dev/null to its owner", async () => {
    await world.runToEnd({ argv: shell('chown 0:0 /dev/null; chmod 600 /dev/null; :') })
    const { uid, mode } = await import('node:fs/promises').then(({ stat }) => stat('/dev/null'))
    assert.deepEqual([uid, mode & 0o777], [0, 0o666])
  })

  test('run() throws the last words of the runtime when the program is missing, a directory or no program (B54)', async () => {
    for (const program of ['/missing', 'missing', '/app', '/etc/passwd'])
      await assert.rejects(
        world.start({ argv: [program] }),
        runtimeFailed(/no such file|not found|permi(ssion denied|tted)|directory/i),
      )
    await nothingLeft()
  })

  test('a file that is executable and no program ends at once with a failure (B54)', async () => {
    const ending = await world.runToEnd({ argv: ['/not-a-program'] }).catch((error: unknown) => error)
    if (ending instanceof Error) runtimeFailed(/exec format/i)(ending)
    else assert.notEqual((ending as { code: number }).code, 0)
    await nothingLeft()
  })

  test('run() throws RUNTIME_FAILED when the working directory is not in the image', async () => {
    await assert.rejects(world.start({ cwd: '/absent/directory' }), runtimeFailed(/./))
    await nothingLeft()
  })

  test('a container connects to a control socket in a directory that only root of the host can enter', async () => {
    const directory = join(world.directory, 'control')
    await mkdir(directory, { mode: 0o700 })
    const path = join(directory, 'c')
    const server = createServer((socket) => socket.end('SOCKET'))
    await new Promise<void>((resolve) => server.listen(path, resolve))
    await giveTo(path, 1000)
    try {
      const program =
        'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/control.sock"); print(s.recv(9).decode())'
      const changes = {
        argv: [python, '-c', program],
        mounts: [{ source: path, destination: '/control.sock', readOnly: true }],
      }
      const asUser = await world.runToEnd({ ...changes, user: { uid: 1000, gid: 1000, additionalGids: [] } })
      assert.equal(asUser.stdout, 'SOCKET\n', asUser.stderr)
      const asOther = await world.runToEnd({ ...changes, user: { uid: 1001, gid: 1001, additionalGids: [] } })
      assert.match(asOther.stderr, /PermissionError/)
    } finally {
      server.close()
    }
  })

  test('limits reach the kernel', async () => {
    const limits = { ...defaultLimits, memoryBytes: 48 << 20, cpuMillis: 500, pids: 20 }
    await using container = await world.start({ argv: ['/bin/busybox', 'sleep', '60'], limits })
    const { version } = world.cgroups.facts
    const read = async (controller: string, file: string) => {
      const root = version === 2 ? '/sys/fs/cgroup' : `/sys/fs/cgroup/${controller}`
      return (await readFile(join(root, world.cgroups.parent, container.id, file), 'utf8')).trim()
    }
    if (version === 2) {
      assert.equal(await read('', 'memory.max'), String(48 << 20))
      assert.equal(await read('', 'memory.swap.max'), '0')
      assert.equal(await read('', 'memory.oom.group'), '1')
      assert.equal(await read('', 'cpu.max'), '50000 100000')
      assert.equal(await read('', 'pids.max'), '20')
    } else {
      assert.equal(await read('memory', 'memory.limit_in_bytes'), String(48 << 20))
      if (world.cgroups.facts.swap)
        assert.equal(await read('memory', 'memory.memsw.limit_in_bytes'), String(48 << 20))
      assert.equal(await read('cpu', 'cpu.cfs_quota_us'), '50000')
      assert.equal(await read('pids', 'pids.max'), '20')
    }
    assert.equal((await readFile(`/proc/${container.pid}/oom_score_adj`, 'utf8')).trim(), '500')
  })

  test('kill() sends a signal, and is content when the container has ended or never was', async () => {
    await using container = await world.start({
      argv: shell('trap "exit 9" TERM; while :; do sleep 0.1; done'),
    })
    await eventually('the trap is set', async () => {
      // Before it is the shell, the process is the runtime's own, which may catch the signal as well.
      assert.match(await readFile(`/proc/${container.pid}/cmdline`, 'utf8'), /trap/)
      const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(await readFile(`/proc/${container.pid}/status`, 'utf8'))
      assert.ok((Number.parseInt(caught?.[1]?.slice(-4) ?? '0', 16) & (1 << 14)) !== 0)
    })
    await world.runtime.kill(container.id, 'SIGTERM')
    assert.equal((await container.ended()).code, 9)
    await world.runtime.kill(container.id, 'SIGTERM')
    await world.runtime.kill('faas-never-was', 'SIGKILL')
  })

  test('delete() ends a running container with all its processes, twice if one likes', async () => {
    const container = await world.start({ argv: shell('sleep 60 & (sleep 60 &) ; sleep 60') })
    await world.runtime.delete(container.id)
    assert.equal((await container.ended()).signal, 9)
    await world.runtime.delete(container.id)
    await container[Symbol.asyncDispose]()
    await nothingLeft()
  })

  test('P60 a process that left its session and its parent dies with the init', async () => {
    await using container = await world.start({ argv: shell('(setsid sleep 1000 &) ; sleep 0.2') })
    await container.ended()
    await eventually('no process is left in the cgroup', async () => {
      const { version } = world.cgroups.facts
      const root = version === 2 ? '/sys/fs/cgroup' : '/sys/fs/cgroup/pids'
      assert.equal(await readFile(join(root, world.cgroups.parent, container.id, 'cgroup.procs'), 'utf8'), '')
    })
  })

  test('delete() removes what a start left that was cut off: state, cgroups and their processes', async () => {
    await using container = await world.start({ argv: ['/bin/busybox', 'sleep', '60'] })
    const state = join(world.stateRoot, container.id)
    for (const file of await readdir(state)) await writeFile(join(state, file), '').catch(() => {})
    const listed = (await world.runtime.list()).find(({ id }) => id === container.id)
    assert.equal(listed?.status, 'broken')
    await world.runtime.delete(container.id)
    assert.equal((await container.ended()).signal, 9)
    await nothingLeft()

    const id = 'faas-half-made'
    await mkdir(join(world.stateRoot, id), { recursive: true })
    assert.deepEqual(await world.runtime.list(), [{ id, pid: 0, status: 'broken', bundle: '' }])
    await world.runtime.delete(id)
    await nothingLeft()
  })

  test('an abort while the runtime works leaves nothing, whenever it comes', async () => {
    for (const delayMs of [0, 2, 5, 10, 20, 40]) {
      const controller = new AbortController()
      const timer = setTimeout(() => controller.abort(new Error('cancelled')), delayMs)
      const changes = { argv: ['/bin/busybox', 'sleep', '60'] }
      const container = await world.start(changes, { signal: controller.signal }).catch((error: unknown) => {
        runtimeFailed(/cancelled/)(error)
        return undefined
      })
      clearTimeout(timer)
      await container?.[Symbol.asyncDispose]()
      if (container !== undefined) await eventually('its end', () => assert.ok(reap(container.pid)))
      await nothingLeft()
    }
  })

  test('two containers of one image are strangers: processes, shared memory, /tmp and host name (P61, P62)', async () => {
    const script = (mark: string) =>
      shell(`echo ${mark} > /tmp/mark; echo ${mark} > /dev/shm/mark; touch /tmp/ready; sleep 60`)
    await using first = await world.start({ argv: script('first'), hostname: 'first' })
    const see = 'ls /proc | grep -c "^[0-9]"; ls -A /tmp /dev/shm; hostname; kill -0 2 2>&1'
    const second = await world.runToEnd({ argv: shell(see), hostname: 'second' })
    assert.doesNotMatch(second.stdout, /mark|ready|first/)
    assert.match(second.stdout, /second/)
    const inside = (path: string) => readFile(`/proc/${first.pid}/root${path}`, 'utf8')
    await eventually('the first container has written', () => inside('/tmp/ready'))
    assert.equal(await inside('/dev/shm/mark'), 'first\n')
  })

  test('ten starts at once all succeed and leave nothing', async () => {
    const endings = await Promise.all(
      Array.from({ length: 10 }, (_, number) => world.runToEnd({ argv: shell(`echo ${number}`) })),
    )
    assert.deepEqual(endings.map(({ stdout }) => stdout.trim()).sort(), '0123456789'.split(''))
    await nothingLeft()
  })
}
