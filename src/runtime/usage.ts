/** What containers use now, read from their cgroups. A container that is gone meanwhile counts as nothing. */
import { join } from 'node:path'
import { readTextIfExists } from '../host/files.ts'
import { type CgroupFacts, cgroupPath } from './cgroups.ts'

export interface Usage {
  readonly memoryBytes: number
  /** Since the container's start. */
  readonly cpuMs: number
}

/** The usage of one container below `parent`. */
export async function readUsage(id: string, parent: string, facts: CgroupFacts): Promise<Usage> {
  const read = async (controller: string, file: string): Promise<string> => {
    const base = facts.version === 2 ? cgroupRoot : join(cgroupRoot, controller)
    const text = await readTextIfExists(join(base, cgroupPath(parent, id), file)).catch(() => undefined)
    return text ?? ''
  }
  if (facts.version === 2) {
    const microseconds = /^usage_usec (\d+)$/m.exec(await read('', 'cpu.stat'))?.[1]
    return { memoryBytes: Number(await read('', 'memory.current')), cpuMs: Number(microseconds ?? 0) / 1000 }
  }
  const nanoseconds = Number(await read('cpuacct', 'cpuacct.usage'))
  return { memoryBytes: Number(await read('memory', 'memory.usage_in_bytes')), cpuMs: nanoseconds / 1e6 }
}

const cgroupRoot = '/sys/fs/cgroup'
