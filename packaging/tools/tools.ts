/**
 * Where the pinned tools lie (see versions.sh, which says the same to bash), and how a new one gets there: made aside and
 * renamed in, so that a directory is complete or absent and two makers at once do not disturb each other.
 */
import { access, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'

/** The tools cache. `environment` is `process.env` at the entry points. */
export function toolsDirectory(environment: Readonly<Record<string, string | undefined>>): string {
  const cache = environment.XDG_CACHE_HOME ?? join(environment.HOME ?? '/root', '.cache')
  return environment.FAAS_TOOLS_DIR ?? join(cache, 'faasd/tools')
}

/**
 * Answers the directory `name` in the cache; calls `make` with an empty directory first when it is not there yet. Whoever
 * loses a race uses the winner's.
 */
export async function cachedDirectory(
  tools: string,
  name: string,
  make: (directory: string) => Promise<void>,
): Promise<string> {
  const target = join(tools, name)
  if (await exists(target)) return target
  await mkdir(tools, { recursive: true })
  const aside = await mkdtemp(join(tools, `.new-${name}-`))
  try {
    await make(aside)
    await rename(aside, target).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
    })
  } finally {
    await rm(aside, { recursive: true, force: true })
  }
  return target
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )
