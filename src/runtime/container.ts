/**
 * What an instance is started from, before it is written as an OCI bundle. Plain values: no path is opened here.
 */
import { FaasError } from '../values/errors.ts'

/** How an instance gets its requests; each has a seccomp profile of its own. */
export type Contract = 'fd' | 'listen'

export interface Limits {
  /** Memory of all processes and of the tmpfs mounts together; past it the kernel kills. Nothing is swapped. */
  readonly memoryBytes: number
  /** CPU time in thousandths of one core: 1000 is one core, 250 a quarter. */
  readonly cpuMillis: number
  /** Processes and threads together. */
  readonly pids: number
  /** Size of the `/tmp` tmpfs. What is in it counts towards `memoryBytes` too. */
  readonly tmpBytes: number
}

export const defaultLimits: Limits = {
  memoryBytes: 512 * 1024 * 1024,
  cpuMillis: 1000,
  pids: 128,
  tmpBytes: 64 * 1024 * 1024,
}

/** A function is killed before anything of the host's; without this it would inherit the daemon's low score. */
export const oomScoreAdj = 500

/** Ids as they are inside of the container, 0 to 65535. */
export interface ContainerUser {
  readonly uid: number
  readonly gid: number
  readonly additionalGids: readonly number[]
}

/** A bind mount. The source may lie in a directory that only root of the host can enter. */
export interface BindMount {
  readonly source: string
  readonly destination: string
  readonly readOnly: boolean
}

/** A directory that a tmpfs covers; owner by the ids inside of the container, and permission bits. */
export interface Scratch {
  readonly path: string
  readonly uid: number
  readonly gid: number
  readonly mode: number
  /** Whether what the image has there is copied into it. */
  readonly copy: boolean
}

export interface ContainerSpec {
  /** Also the name of its cgroup; see {@link checkContainerId}. */
  readonly id: string
  /** A mounted root whose files belong to the ids of id-map.ts; its parents must be open to others (o+x). */
  readonly rootfs: string
  readonly argv: readonly string[]
  /** `NAME=value` each. PATH and HOSTNAME are added where they are missing, as Docker does. */
  readonly env: readonly string[]
  readonly cwd: string
  readonly user: ContainerUser
  readonly hostname: string
  readonly limits: Limits
  readonly contract: Contract
  readonly mounts: readonly BindMount[]
  /** Whether programs may write to the root. What they write must cost no more than their memory. */
  readonly writable?: boolean
  /** Directories that are there, each of which gets a tmpfs as large as `/tmp`. */
  readonly scratch?: readonly Scratch[]
  /** The UNIX socket to which the runtime sends the descriptor of supervised calls. */
  readonly seccompListener?: string
  /** Name of the cgroup below which containers lie, such as `faasd`. */
  readonly cgroupParent: string
}

const containerId = /^[a-z0-9](?:[a-z0-9-]{0,126}[a-z0-9])?$/

/**
 * A container id becomes a directory of the runtime, a cgroup and an argument of its command line, so nothing
 * else than a-z, 0-9 and "-" is let through, and no "-" first. Throws INTERNAL: ids are made by us.
 */
export function checkContainerId(id: string): string {
  if (containerId.test(id)) return id
  throw new FaasError('INTERNAL', `${JSON.stringify(id.slice(0, 80))} is no container id`)
}
