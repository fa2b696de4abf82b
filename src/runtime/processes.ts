/** Which processes a container has, by its cgroup. */
import { join } from 'node:path'
import { readTextIfExists } from '../host/files.ts'
import { type CgroupFacts, cgroupPath } from './cgroups.ts'

/** The pids in a container's cgroup, as our own pid namespace numbers them; none when it is gone. */
export async function listProcesses(
  id: string,
  parent: string,
  facts: CgroupFacts,
): Promise<readonly number[]> {
  // Every container is in the freezer's hierarchy on v1: it is paused by it.
  const path = join(
    '/sys/fs/cgroup',
    facts.version === 2 ? '' : 'freezer',
    cgroupPath(parent, id),
    'cgroup.procs',
  )
  const text = await readTextIfExists(path).catch(() => undefined)
  return (text ?? '')
    .split('\n')
    .map(Number)
    .filter((pid) => pid > 0)
}
