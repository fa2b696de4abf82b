/** Images that are asked from inside: agent.py, with files and a configuration around it. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ImageConfigInput } from '../images/archive.ts'
import { buildImage } from '../images/build.ts'
import type { TarEntry } from '../images/tar.ts'
import type { Place } from '../servers/place.ts'

const path = 'PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The agent in an image with these files; `config` is laid over its own. */
export async function agentImage(
  files: readonly TarEntry[] = [],
  config: ImageConfigInput & Record<string, unknown> = {},
): Promise<string> {
  const content = await readFile(join(import.meta.dirname, 'agent.py'))
  const app: TarEntry[] = [
    { path: 'app', type: 'directory' },
    { path: 'app/agent.py', content },
  ]
  const { Env = [], ...others } = config
  return buildImage({
    name: 'agent',
    base: 'python-ctypes',
    layers: [[...app, ...files]],
    config: { Cmd: ['python3', '/app/agent.py'], ...others, Env: [path, ...Env] },
  })
}

/** Runs Python in an instance of the function; what it leaves in `answer`. */
export async function ask<T>(place: Place, name: string, code: string): Promise<T> {
  const { failure, answer } = JSON.parse(await place.get(name, `/?${encodeURIComponent(code)}`)) as {
    failure?: string
    answer: T
  }
  assert.equal(failure, undefined, failure)
  return answer
}

/** Where something is mounted in an instance, but what the runtime puts over files of /proc. */
export const mountsIn = async (place: Place, name: string): Promise<string[]> => {
  const code = `answer = [line.split()[4] for line in open("/proc/self/mountinfo")]`
  const points = await ask<string[]>(place, name, code)
  return points.filter((point) => !/^\/(proc|dev)\/.*/.test(point) || point === '/dev/shm').sort()
}
