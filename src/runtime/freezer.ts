/**
 * Stops and resumes all processes of a container at once. A frozen container uses no CPU time and keeps its memory.
 * Signals sent meanwhile are delivered when it thaws, before anything of the program runs.
 * Failure: RUNTIME_FAILED where the cgroup is gone or the kernel does not freeze it in time.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { FaasError } from '../values/errors.ts'
import { type CgroupFacts, cgroupPath } from './cgroups.ts'

export interface Freezer {
  /** Resolves when every process has stopped. */
  freeze(id: string): Promise<void>
  thaw(id: string): Promise<void>
}

const cgroupRoot = '/sys/fs/cgroup'
const freezeTimeoutMs = 2_000
const pauseMs = 2

export function createFreezer({ facts, parent }: { facts: CgroupFacts; parent: string }): Freezer {
  const directory = (id: string): string =>
    join(cgroupRoot, facts.version === 2 ? '' : 'freezer', cgroupPath(parent, id))
  const write = async (id: string, frozen: boolean): Promise<void> => {
    const [file, value] =
      facts.version === 2
        ? ['cgroup.freeze', frozen ? '1' : '0']
        : ['freezer.state', frozen ? 'FROZEN' : 'THAWED']
    try {
      await writeFile(join(directory(id), file), value)
    } catch (error) {
      throw new FaasError(
        'RUNTIME_FAILED',
        `${id} cannot be ${frozen ? 'frozen' : 'thawed'}: ${String(error)}`,
        {
          cause: error,
        },
      )
    }
  }
  const isFrozen = async (id: string): Promise<boolean> =>
    facts.version === 2
      ? (await readFile(join(directory(id), 'cgroup.events'), 'utf8')).includes('frozen 1')
      : (await readFile(join(directory(id), 'freezer.state'), 'utf8')).trim() === 'FROZEN'

  return {
    async freeze(id) {
      await write(id, true)
      const deadline = performance.now() + freezeTimeoutMs
      while (!(await isFrozen(id))) {
        if (performance.now() > deadline) {
          await write(id, false)
          throw new FaasError('RUNTIME_FAILED', `${id} did not freeze within ${freezeTimeoutMs} ms`)
        }
        await delay(pauseMs)
      }
    },
    thaw: (id) => write(id, false),
  }
}
