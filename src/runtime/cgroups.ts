/**
 * Control groups as far as they are ours: which version the host has, the limits of a container in the OCI form
 * ("Control groups", OCI runtime spec 1.0.2), and what is needed to end and remove what a runtime left.
 * The runtime makes a container's cgroups; a container's lie at `<hierarchy>/<parent>/<id>` in every hierarchy.
 * Failures: RUNTIME_FAILED where there are no cgroups, or the kernel does not let one be removed in time.
 */
import { access, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../host/eventually.ts'
import { readTextIfExists } from '../host/files.ts'
import { FaasError } from '../values/errors.ts'
import type { Limits } from './container.ts'

export interface CgroupFacts {
  /** 2 where /sys/fs/cgroup is the unified hierarchy; 1 for separate ones, also with a cgroup2 beside them. */
  readonly version: 1 | 2
  /** Whether the kernel can limit swap (v1: memory.memsw.*). */
  readonly swap: boolean
  /** Mount points of all hierarchies that containers are put into. */
  readonly hierarchies: readonly string[]
}

const cgroupRoot = '/sys/fs/cgroup'
const cpuPeriodUs = 100_000
const removalTimeoutMs = 10_000

export interface OciResources {
  readonly devices: readonly { readonly allow: boolean; readonly access: string }[]
  readonly memory: { readonly limit: number; readonly swap?: number; readonly swappiness?: number }
  readonly cpu: { readonly quota: number; readonly period: number }
  readonly pids: { readonly limit: number }
  readonly unified?: Readonly<Record<string, string>>
}

/** The path of a container's cgroup below each hierarchy, absolute: a relative one would lie below the runtime's own. */
export const cgroupPath = (parent: string, id: string): string => `/${parent}/${id}`

/**
 * Limits as `linux.resources`. `memory.swap` is memory and swap together, so equal values mean no swap. No device
 * is allowed but those that runtimes add by themselves (null, zero and their like).
 */
export function renderResources(limits: Limits, { version, swap }: CgroupFacts): OciResources {
  const limit = limits.memoryBytes
  return {
    devices: [{ allow: false, access: 'rwm' }],
    memory: swap ? { limit, swap: limit } : { limit, swappiness: 0 },
    cpu: { quota: Math.max(1000, Math.round((limits.cpuMillis * cpuPeriodUs) / 1000)), period: cpuPeriodUs },
    pids: { limit: limits.pids },
    // The kernel's OOM killer ends the container as a whole, not one process of it.
    ...(version === 2 ? { unified: { 'memory.oom.group': '1' } } : {}),
  }
}

/** Mount points of cgroup hierarchies in the text of /proc/self/mountinfo (proc_pid_mountinfo(5)), with their type. */
export function parseCgroupMounts(mountinfo: string): { mountPoint: string; type: 'cgroup' | 'cgroup2' }[] {
  return mountinfo.split('\n').flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ')
    const mountPoint = before.split(' ')[4]
    const type = after.split(' ')[0]
    return mountPoint !== undefined && (type === 'cgroup' || type === 'cgroup2') ? [{ mountPoint, type }] : []
  })
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

/** Looks at what is mounted below /sys/fs/cgroup. Throws RUNTIME_FAILED where there is no hierarchy. */
export async function detectCgroups(): Promise<CgroupFacts> {
  const mounts = parseCgroupMounts(await readFile('/proc/self/mountinfo', 'utf8')).filter(
    ({ mountPoint }) => mountPoint === cgroupRoot || mountPoint.startsWith(`${cgroupRoot}/`),
  )
  if (mounts.length === 0) {
    throw new FaasError('RUNTIME_FAILED', `no cgroup hierarchy is mounted below ${cgroupRoot}`, {
      hint: `mount one: mount -t cgroup2 cgroup2 ${cgroupRoot}`,
    })
  }
  const hierarchies = [...new Set(mounts.map(({ mountPoint }) => mountPoint))]
  if (mounts.some(({ mountPoint, type }) => mountPoint === cgroupRoot && type === 'cgroup2')) {
    return { version: 2, swap: true, hierarchies: [cgroupRoot] }
  }
  const swap = await exists(join(cgroupRoot, 'memory', 'memory.memsw.limit_in_bytes'))
  return { version: 1, swap, hierarchies }
}

export interface Cgroups {
  readonly facts: CgroupFacts
  readonly parent: string
  /** Whether a container has a cgroup in any hierarchy. */
  has(id: string): Promise<boolean>
  /** Kills what is in the cgroups of a container and removes them. Idempotent. */
  remove(id: string): Promise<void>
  /** Ids that have a cgroup below the parent, in any hierarchy. */
  list(): Promise<string[]>
  /** Removes the cgroups of all containers, and the parent where nothing else is in it. */
  cleanUp(): Promise<void>
}

const ignoreInUse = (error: unknown): void => {
  if (!isErrno(error, 'ENOENT', 'EBUSY', 'ENOTEMPTY')) throw error
}

const isErrno = (error: unknown, ...codes: string[]): boolean =>
  codes.includes((error as NodeJS.ErrnoException).code ?? '')

async function directoriesIn(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV')) return []
    throw error
  }
}

/** One round of SIGKILL for all that is listed. `cgroup.kill` (v2, since Linux 5.14) reaches all at once. */
async function killIn(path: string): Promise<void> {
  for (const child of await directoriesIn(path)) await killIn(join(path, child))
  const killed = await writeFile(join(path, 'cgroup.kill'), '1', { flag: 'r+' }).then(
    () => true,
    () => false,
  )
  if (killed) return
  const text = await readTextIfExists(join(path, 'cgroup.procs')).catch((error: unknown) => {
    if (isErrno(error, 'ENODEV')) return undefined
    throw error
  })
  for (const line of (text ?? '').split('\n')) {
    const pid = Number(line)
    if (pid > 1 && pid !== process.pid) signal(pid)
  }
}

function signal(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error
  }
}

async function removeTree(path: string): Promise<void> {
  for (const child of await directoriesIn(path)) await removeTree(join(path, child))
  try {
    await rmdir(path)
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
  }
}

/**
 * The cgroups of containers below `parent`. Killing is repeated until the cgroup can be removed: a process that
 * forks is caught by a later round, at the latest when the container's init has died and its pid namespace with it.
 */
export function createCgroups({ facts, parent }: { facts: CgroupFacts; parent: string }): Cgroups {
  if (!/^[a-z0-9][\w.@-]*(\/[a-z0-9][\w.@-]*)*$/i.test(parent)) {
    throw new FaasError('OPTION_INVALID', `${JSON.stringify(parent)} is no name for a parent cgroup`, {
      hint: 'name one below the root, such as faasd or system.slice/faasd.service',
    })
  }
  const paths = (...names: string[]) =>
    facts.hierarchies.map((hierarchy) => join(hierarchy, parent, ...names))

  const removeAt = async (path: string): Promise<void> => {
    if (!(await exists(path))) return
    const attempt = async () => {
      await killIn(path)
      await removeTree(path)
    }
    try {
      await eventually(`removing ${path}`, attempt, { timeoutMs: removalTimeoutMs, intervalMs: 10 })
    } catch (error) {
      throw new FaasError('RUNTIME_FAILED', `the cgroup ${path} cannot be removed`, { cause: error })
    }
  }

  // Where the daemon itself lies below the parent (a delegated subtree), its own cgroup is no container's.
  const isOwn = async (path: string): Promise<boolean> =>
    ((await readTextIfExists(join(path, 'cgroup.procs'))) ?? '').split('\n').includes(String(process.pid))

  const list = async (): Promise<string[]> => {
    const ids = new Set<string>()
    for (const path of paths()) {
      for (const id of await directoriesIn(path)) {
        if (!(await isOwn(join(path, id)))) ids.add(id)
      }
    }
    return [...ids].sort()
  }

  const remove = async (id: string): Promise<void> => {
    await Promise.all(paths(id).map(removeAt))
  }

  return {
    facts,
    parent,
    has: async (id) => (await Promise.all(paths(id).map(exists))).includes(true),
    remove,
    list,
    cleanUp: async () => {
      for (const id of await list()) await remove(id)
      for (const path of paths()) await rmdir(path).catch(ignoreInUse)
    },
  }
}
