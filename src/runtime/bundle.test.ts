import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { FaasError } from '../values/errors.ts'
import { type BundleHost, renderBundle, writeBundle } from './bundle.ts'
import { type ContainerSpec, defaultLimits } from './container.ts'
import { renderSeccomp } from './seccomp.ts'

const host: BundleHost = {
  cgroups: { version: 1, swap: true, hierarchies: [] },
  architecture: 'x64',
  openFiles: 20_000,
}

const spec: ContainerSpec = {
  id: 'faas-fibonacci-0123abcd',
  rootfs: '/var/lib/faasd/images/fibonacci/versions/0123456789ab/rootfs',
  argv: ['python3', '/app/fib.py'],
  env: ['LANG=C.UTF-8'],
  cwd: '/app/',
  user: { uid: 1000, gid: 1000, additionalGids: [44] },
  hostname: 'fibonacci',
  limits: defaultLimits,
  contract: 'fd',
  mounts: [{ source: '/run/faasd/i/x/c', destination: '/control.sock', readOnly: true }],
  cgroupParent: 'faasd',
}

test('renderBundle() renders a container as the OCI runtime spec has it', () => {
  assert.deepEqual(renderBundle(spec, host), {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid: 1000, gid: 1000, umask: 18, additionalGids: [44] },
      args: ['python3', '/app/fib.py'],
      env: [
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        'HOSTNAME=fibonacci',
        'LANG=C.UTF-8',
      ],
      cwd: '/app',
      capabilities: { bounding: [], effective: [], inheritable: [], permitted: [], ambient: [] },
      rlimits: [
        { type: 'RLIMIT_CORE', hard: 0, soft: 0 },
        { type: 'RLIMIT_MEMLOCK', hard: 65536, soft: 65536 },
        { type: 'RLIMIT_MSGQUEUE', hard: 0, soft: 0 },
        { type: 'RLIMIT_FSIZE', hard: 268435456, soft: 268435456 },
        { type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 },
      ],
      noNewPrivileges: true,
      oomScoreAdj: 500,
    },
    root: { path: '/var/lib/faasd/images/fibonacci/versions/0123456789ab/rootfs', readonly: true },
    hostname: 'fibonacci',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'noexec', 'ro', 'mode=755', 'size=65536', 'nr_inodes=64'],
      },
      {
        destination: '/dev/shm',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'nodev', 'noexec', 'mode=1777', 'size=16777216', 'nr_inodes=1024'],
      },
      {
        destination: '/tmp',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'nodev', 'mode=1777', 'size=67108864', 'nr_inodes=16384'],
      },
      {
        destination: '/control.sock',
        type: 'bind',
        source: '/run/faasd/i/x/c',
        options: ['rbind', 'ro', 'nosuid', 'nodev', 'private'],
      },
    ],
    linux: {
      uidMappings: [{ containerID: 0, hostID: 1878982656, size: 65536 }],
      gidMappings: [{ containerID: 0, hostID: 1878982656, size: 65536 }],
      namespaces: [
        { type: 'user' },
        { type: 'mount' },
        { type: 'pid' },
        { type: 'network' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'cgroup' },
      ],
      cgroupsPath: '/faasd/faas-fibonacci-0123abcd',
      resources: {
        devices: [{ allow: false, access: 'rwm' }],
        memory: { limit: 536870912, swap: 536870912 },
        cpu: { quota: 100000, period: 100000 },
        pids: { limit: 128 },
      },
      seccomp: renderSeccomp('fd', 'x64'),
      rootfsPropagation: 'private',
      maskedPaths: [
        '/proc/acpi',
        '/proc/asound',
        '/proc/interrupts',
        '/proc/kcore',
        '/proc/keys',
        '/proc/latency_stats',
        '/proc/sched_debug',
        '/proc/scsi',
        '/proc/timer_list',
        '/proc/timer_stats',
      ],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  })
})

interface Rendered {
  readonly process: {
    readonly capabilities: Readonly<Record<string, readonly string[]>>
    readonly rlimits: readonly object[]
  }
  readonly root: { readonly readonly: boolean }
  readonly mounts: readonly { readonly destination: string; readonly options: readonly string[] }[]
}
const rendered = (changes: Partial<ContainerSpec>): Rendered =>
  renderBundle({ ...spec, ...changes }, host) as Rendered

test('renderBundle() gives `listen` the capabilities of an entrypoint that changes user, and descriptors for connections', () => {
  const { capabilities, rlimits } = rendered({ contract: 'listen' }).process
  const names = 'CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETPCAP SETUID'.split(' ')
  const given = names.map((name) => `CAP_${name}`)
  assert.deepEqual(capabilities, {
    bounding: given,
    effective: given,
    inheritable: [],
    permitted: given,
    ambient: [],
  })
  assert.deepEqual(rlimits.slice(3), [{ type: 'RLIMIT_NOFILE', hard: 20_000, soft: 20_000 }])
})

test('renderBundle() makes a root writable when it is asked to', () => {
  assert.equal(rendered({}).root.readonly, true)
  assert.equal(rendered({ writable: true }).root.readonly, false)
})

test('renderBundle() puts a tmpfs on each scratch directory and copies where there is something', () => {
  const owner = { uid: 70, gid: 71, mode: 0o2770 }
  const scratch = [
    { path: '/empty', ...owner, copy: false },
    { path: '/full', ...owner, copy: true },
  ]
  const mounts = rendered({ scratch }).mounts.slice(4, 6)
  const size = ['uid=70', 'gid=71', 'size=67108864', 'nr_inodes=16384']
  assert.deepEqual(
    mounts.map(({ destination, options }) => [destination, options]),
    [
      ['/empty', ['nosuid', 'nodev', 'mode=2770', ...size]],
      ['/full', ['nosuid', 'nodev', 'tmpcopyup', 'mode=770', ...size]],
    ],
  )
})

const processOf = (changes: Partial<ContainerSpec>): { env: string[]; cwd: string } =>
  (renderBundle({ ...spec, ...changes }, host) as { process: { env: string[]; cwd: string } }).process

test("renderBundle() keeps the image's PATH and HOSTNAME, and B21 leaves out what is no NAME=value", () => {
  const env = ['PATH=/bin', 'HOSTNAME=other', 'LD_PRELOAD=/x.so', 'novalue', '=x', 'EMPTY=']
  assert.deepEqual(processOf({ env }).env, ['PATH=/bin', 'HOSTNAME=other', 'LD_PRELOAD=/x.so', 'EMPTY='])
})

test('renderBundle() makes the working directory absolute and plain', () => {
  assert.equal(processOf({ cwd: '' }).cwd, '/')
  assert.equal(processOf({ cwd: '/a/./b/../c//' }).cwd, '/a/c')
  assert.equal(processOf({ cwd: '/../../x' }).cwd, '/x')
  assert.equal(processOf({ cwd: '/process' }).cwd, '/process')
})

test('renderBundle() refuses what no container can be started with (B18, B19, B21)', () => {
  const cases: readonly Partial<ContainerSpec>[] = [
    { argv: [] },
    { argv: [''] },
    { argv: ['/a', 'b\0c'] },
    { env: ['A=\0'] },
    { cwd: 'relative' },
    { cwd: '/proc/self/fd/7/../..' },
    { cwd: '/proc/self/fd/7' },
    { cwd: '/dev/shm' },
    { cwd: '/x\0' },
    { user: { uid: 65536, gid: 0, additionalGids: [] } },
    { user: { uid: 0, gid: -1, additionalGids: [] } },
    { user: { uid: 0, gid: 0, additionalGids: [1e12] } },
  ]
  for (const changes of cases) {
    assert.throws(
      () => renderBundle({ ...spec, ...changes }, host),
      (error) => error instanceof FaasError && error.code === 'IMAGE_CONFIG_INVALID',
      JSON.stringify(changes),
    )
  }
})

test('renderBundle() refuses an id that is a path', () => {
  assert.throws(() => renderBundle({ ...spec, id: '../x' }, host), /is no container id/)
})

test('writeBundle() writes a config.json that only its owner can read', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'bundle-'))
  try {
    const bundle = join(directory, 'b')
    await writeBundle(bundle, spec, host)
    const path = join(bundle, 'config.json')
    assert.deepEqual(JSON.parse(await readFile(path, 'utf8')), renderBundle(spec, host))
    assert.equal((await stat(path)).mode & 0o777, 0o600)
  } finally {
    await rm(directory, { recursive: true })
  }
})
