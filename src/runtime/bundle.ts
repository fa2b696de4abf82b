/**
 * An OCI bundle: a directory with `config.json` as the OCI runtime spec 1.0.2 has it ("Configuration" and "Linux
 * Container Configuration"). Rendering is pure. Of an image only its argv, env, cwd and user get in: never
 * mounts, hooks or annotations.
 * Failures: IMAGE_CONFIG_INVALID for values that no container can be started with.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { FaasError } from '../values/errors.ts'
import { ID_COUNT, idMappings } from '../values/id-map.ts'
import { type CgroupFacts, cgroupPath, detectCgroups, renderResources } from './cgroups.ts'
import { type ContainerSpec, type Contract, checkContainerId, oomScoreAdj } from './container.ts'
import { type Architecture, renderSeccomp } from './seccomp.ts'

/** What the configuration depends on besides the spec. */
export interface BundleHost {
  readonly cgroups: CgroupFacts
  readonly architecture: Architecture
  /** Descriptors that a process may hold at most: in a user namespace no limit can be raised. */
  readonly openFiles: number
}

const kib = 1024
const mib = 1024 * kib

const defaultPath = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

const limit = (type: string, value: number) => ({ type, hard: value, soft: value })

/**
 * Limits of a process. Processes are bounded by the pids cgroup: RLIMIT_NPROC counts a user, not a container. A server
 * holds a descriptor for each connection, and its files are bounded by the mounts that they lie in: FSIZE would end a
 * database in the middle of a write.
 */
const contractLimits = {
  fd: { openFiles: 1024, more: [limit('RLIMIT_FSIZE', 256 * mib)] },
  listen: { openFiles: 64 * kib, more: [] },
} as const satisfies Record<Contract, { openFiles: number; more: readonly object[] }>

const rlimitsOf = (contract: Contract, { openFiles }: BundleHost): readonly object[] => [
  limit('RLIMIT_CORE', 0),
  limit('RLIMIT_MEMLOCK', 64 * kib),
  limit('RLIMIT_MSGQUEUE', 0),
  ...contractLimits[contract].more,
  limit('RLIMIT_NOFILE', Math.min(contractLimits[contract].openFiles, openFiles)),
]

const none: readonly string[] = []

/**
 * What entrypoints need that begin as root and go on as another user, in the container's own user namespace and
 * nowhere else. A program that begins as another user has none of them, and never gets any: no_new_privs.
 */
const contractCapabilities: Readonly<Record<Contract, readonly string[]>> = {
  fd: none,
  listen: [
    'CAP_CHOWN',
    'CAP_DAC_OVERRIDE',
    'CAP_FOWNER',
    'CAP_FSETID',
    'CAP_KILL',
    'CAP_SETGID',
    'CAP_SETPCAP',
    'CAP_SETUID',
  ],
}

const namespaces = ['user', 'mount', 'pid', 'network', 'ipc', 'uts', 'cgroup'] as const

/** What tells about the host or its devices. /sys is not mounted at all, so nothing of it is listed. */
const maskedPaths = [
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
] as const

const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'] as const

/** Inodes of `/tmp`: files cost kernel memory that a size does not count. */
const tmpInodes = 16_384
const shmBytes = 16 * mib
const shmInodes = 1024

interface OciMount {
  readonly destination: string
  readonly type: string
  readonly source: string
  readonly options: readonly string[]
}

const tmpfs = (destination: string, ...options: string[]): OciMount => ({
  destination,
  type: 'tmpfs',
  source: 'tmpfs',
  options: ['nosuid', 'nodev', ...options],
})

/**
 * `/dev` is a tmpfs in which the runtime makes null, zero, full, random, urandom, tty and the links of the spec
 * ("Default Devices", "Default Filesystems"); it is then made read-only. No devpts, no mqueue, no console.
 */
function mountsOf(spec: ContainerSpec): OciMount[] {
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'noexec', 'ro', 'mode=755', `size=${64 * kib}`, 'nr_inodes=64'],
    },
    tmpfs('/dev/shm', 'noexec', 'mode=1777', `size=${shmBytes}`, `nr_inodes=${shmInodes}`),
    tmpfs('/tmp', 'mode=1777', `size=${spec.limits.tmpBytes}`, `nr_inodes=${tmpInodes}`),
    ...scratchOf(spec),
    ...spec.mounts.map(({ source, destination, readOnly }) => ({
      destination,
      type: 'bind',
      source,
      options: ['rbind', readOnly ? 'ro' : 'rw', 'nosuid', 'nodev', 'private'],
    })),
  ]
}

/**
 * `tmpcopyup`: what the image has there is copied into the tmpfs by the runtime, as Docker does for a new volume. While
 * runc copies, the setgid bit would spread to the directories within; it sets the directory's own afterwards.
 */
const scratchOf = ({ scratch = [], limits }: ContainerSpec): OciMount[] =>
  scratch.map(({ path, uid, gid, mode, copy }) =>
    tmpfs(
      path,
      ...(copy ? ['tmpcopyup'] : []),
      `mode=${(copy ? mode & 0o1777 : mode).toString(8)}`,
      `uid=${uid}`,
      `gid=${gid}`,
      `size=${limits.tmpBytes}`,
      `nr_inodes=${tmpInodes}`,
    ),
  )

const bad = (message: string) => new FaasError('IMAGE_CONFIG_INVALID', message)

function checkProcess(spec: ContainerSpec): void {
  if (spec.argv.length === 0 || spec.argv[0] === '') throw bad('the image has no command to run')
  const texts = [...spec.argv, ...spec.env, spec.cwd]
  if (texts.some((text) => text.includes('\0')))
    throw bad('the command, environment or directory has a NUL byte')
  for (const id of [spec.user.uid, spec.user.gid, ...spec.user.additionalGids]) {
    if (!Number.isInteger(id) || id < 0 || id >= ID_COUNT)
      throw bad(`the user id ${id} is not within 0..65535`)
  }
}

/** The working directory, absolute and without dots. In /proc it could be the runtime's own descriptor (CVE-2024-21626). */
function workingDirectory(cwd: string): string {
  const path = posix.normalize(cwd === '' ? '/' : cwd)
  if (!posix.isAbsolute(path)) throw bad(`the working directory ${JSON.stringify(cwd)} is not absolute`)
  if (/^\/(proc|sys|dev)(\/|$)/.test(path))
    throw bad(`the working directory ${path} is not one of the image's`)
  return path === '/' ? path : path.replace(/\/$/, '')
}

function environment({ env, hostname }: ContainerSpec): string[] {
  const has = (name: string) => env.some((entry) => entry.startsWith(`${name}=`))
  return [
    ...(has('PATH') ? [] : [defaultPath]),
    ...(has('HOSTNAME') ? [] : [`HOSTNAME=${hostname}`]),
    ...env.filter((entry) => entry.indexOf('=') > 0),
  ]
}

/** The `config.json` of a container, as a value. Entries of `env` that are no `NAME=value` are left out. */
export function renderBundle(spec: ContainerSpec, host: BundleHost): object {
  const { cgroups, architecture } = host
  checkContainerId(spec.id)
  checkProcess(spec)
  const capabilities = contractCapabilities[spec.contract]
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: {
        uid: spec.user.uid,
        gid: spec.user.gid,
        umask: 0o022,
        additionalGids: spec.user.additionalGids,
      },
      args: spec.argv,
      env: environment(spec),
      cwd: workingDirectory(spec.cwd),
      capabilities: {
        bounding: capabilities,
        effective: capabilities,
        inheritable: none,
        permitted: capabilities,
        ambient: none,
      },
      rlimits: rlimitsOf(spec.contract, host),
      noNewPrivileges: true,
      oomScoreAdj,
    },
    root: { path: spec.rootfs, readonly: spec.writable !== true },
    hostname: spec.hostname,
    mounts: mountsOf(spec),
    linux: {
      uidMappings: idMappings,
      gidMappings: idMappings,
      namespaces: namespaces.map((type) => ({ type })),
      cgroupsPath: cgroupPath(spec.cgroupParent, spec.id),
      resources: renderResources(spec.limits, cgroups),
      seccomp: renderSeccomp(spec.contract, architecture, spec.seccompListener),
      // What is mounted on the host while the container starts does not appear in it.
      rootfsPropagation: 'private',
      maskedPaths,
      readonlyPaths,
    },
  }
}

/** What the running host is. Throws RUNTIME_FAILED without cgroups or on an architecture without a seccomp profile. */
export async function detectBundleHost(): Promise<BundleHost> {
  const { arch } = process
  if (arch !== 'x64' && arch !== 'arm64') {
    throw new FaasError('RUNTIME_FAILED', `containers run on x64 and arm64, this machine is ${arch}`)
  }
  return { cgroups: await detectCgroups(), architecture: arch, openFiles: await findOpenFiles() }
}

/** This process's own hard limit, which runtimes inherit. */
async function findOpenFiles(): Promise<number> {
  const limits = await readFile('/proc/self/limits', 'utf8')
  const [, hard] = /^Max open files +\S+ +(\d+)/m.exec(limits) ?? []
  return hard === undefined ? Number.MAX_SAFE_INTEGER : Number(hard)
}

/**
 * Makes `directory` with its `config.json`. Its parent must exist and be open to others (o+x), as must those of the
 * rootfs; the directory itself need not be. The caller removes it.
 */
export async function writeBundle(directory: string, spec: ContainerSpec, host: BundleHost): Promise<void> {
  const text = `${JSON.stringify(renderBundle(spec, host))}\n`
  await mkdir(directory, { mode: 0o700, recursive: true })
  await writeFile(join(directory, 'config.json'), text, { mode: 0o600 })
}
