/**
 * The command line that runc and crun share, and the clean-up that neither does alone. A container is found by
 * its id only: after a crash there is no other memory of it.
 */
import { access, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Exec } from '../host/exec.ts'
import { readTextIfExists } from '../host/files.ts'
import { reapOrphans } from '../host/native/process.ts'
import { FaasError } from '../values/errors.ts'
import type { Cgroups } from './cgroups.ts'
import { checkContainerId } from './container.ts'
import { launch, runtimeEnvironment } from './launch.ts'
import type { ContainerState, OciRuntime, RunOptions } from './oci-runtime.ts'

export interface RuntimeDeps {
  readonly exec: Exec
  readonly cgroups: Cgroups
  /** Where the runtime keeps its state. Default: the runtime's own, so that its plain `list` shows our containers. */
  readonly stateRoot?: string
  /** The program, where it is not the runtime's name looked up in the standard directories. */
  readonly program?: string
}

/** How one runtime differs from the other. */
export interface Dialect {
  readonly name: 'runc' | 'crun'
  readonly stateRoot: string
  /** Options before the command that send the runtime's errors to a file. */
  logOptions(path: string): readonly string[]
  /** Whether an error says that the container is not there, or has ended. */
  readonly gone: RegExp
}

/** Last words of a runtime: the `msg` of its last JSON log line, or that line as it is. */
export function lastWords(log: string): string {
  const line = log.trim().split('\n').at(-1) ?? ''
  try {
    const entry: unknown = JSON.parse(line)
    if (typeof entry === 'object' && entry !== null && 'msg' in entry) return String(entry.msg)
  } catch {
    // not JSON: the program may have died before it set its log up
  }
  return line
}

const isFailure = (error: unknown): error is FaasError =>
  error instanceof FaasError && error.code === 'COMMAND_FAILED'

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

const readPid = async (path: string): Promise<number> => {
  const pid = Number((await readFile(path, 'utf8')).trim())
  if (Number.isInteger(pid) && pid > 1) return pid
  throw new Error(`${path} holds no pid`)
}

export function createCommandLineRuntime(dialect: Dialect, deps: RuntimeDeps): OciRuntime {
  const { exec, cgroups, stateRoot = dialect.stateRoot } = deps
  const { name } = dialect
  const program = deps.program ?? name
  const root = stateRoot === dialect.stateRoot ? [] : ['--root', stateRoot]

  const command = (...args: string[]) => exec(program, [...root, ...args], { env: runtimeEnvironment })

  const isGone = (error: unknown): boolean => isFailure(error) && dialect.gone.test(error.message)

  /**
   * What a container consists of besides its processes is its cgroups and its directory of state: ending the cgroups
   * and removing both is what the runtime's own `delete` does, without starting a program for each request. Only a
   * container outside of our cgroups (the parent was configured otherwise) is left to the runtime, which knows its pid.
   */
  const remove = async (id: string): Promise<void> => {
    checkContainerId(id)
    const state = join(stateRoot, id)
    if (!(await cgroups.has(id)) && (await exists(state))) {
      await command('delete', '--force', id).catch((error: unknown) => {
        // A state that the runtime cannot read, or that it has just removed: nothing runs by it.
        if (!isFailure(error)) throw error
      })
    }
    await cgroups.remove(id)
    await rm(state, { recursive: true, force: true })
  }

  /** Removes what a failed start left. That it fails too must not hide why the start did. */
  const removeAfterFailure = async (id: string): Promise<void> => {
    await remove(id).catch(() => {})
    void reapOrphans()
  }

  const run = async (options: RunOptions): Promise<{ pid: number }> => {
    const { id, bundle, signal } = options
    checkContainerId(id)
    const pidFile = join(bundle, 'pid')
    const log = join(bundle, 'runtime.log')
    await Promise.all([pidFile, log].map((path) => rm(path, { force: true })))
    const args = [
      ...root,
      ...dialect.logOptions(log),
      'run',
      '--detach',
      // A keyring for each container would be charged to one user, ID_BASE, which may have 200; the seccomp profile
      // denies the calls that reach any.
      '--no-new-keyring',
      ...['--pid-file', pidFile],
      ...['--bundle', bundle],
      id,
    ]
    const { code, killedBy } = await launch(program, args, options)
    if (code === 0 && signal?.aborted !== true) {
      try {
        return { pid: await readPid(pidFile) }
      } catch (cause) {
        await removeAfterFailure(id)
        throw new FaasError('RUNTIME_FAILED', `${name} started ${id} and did not say its pid`, { cause })
      }
    }
    const words = lastWords((await readTextIfExists(log)) ?? '')
    await removeAfterFailure(id)
    const why =
      killedBy ?? (signal?.aborted === true ? 'it was cancelled' : words || `it exited with ${code}`)
    throw new FaasError('RUNTIME_FAILED', `${name} could not start ${id}: ${why}`, { cause: signal?.reason })
  }

  /** The state of one container; `broken` where the runtime cannot tell it. */
  const stateOf = async (id: string): Promise<ContainerState> => {
    const broken = { id, pid: 0, status: 'broken', bundle: '' }
    try {
      return toState(JSON.parse((await command('state', id)).stdout)) ?? broken
    } catch (error) {
      if (isFailure(error) || error instanceof SyntaxError) return broken
      throw error
    }
  }

  /** One unreadable state makes `list` as a whole fail, so each directory that it did not tell of is asked for. */
  const list = async (): Promise<ContainerState[]> => {
    const known = await command('list', '--format', 'json').then(
      ({ stdout }) => parseList(stdout),
      (error: unknown) => {
        if (isFailure(error)) return []
        throw error
      },
    )
    const told = new Set(known.map(({ id }) => id))
    const directories = await readdir(stateRoot).catch(() => [])
    const others = directories.filter((id) => !told.has(id) && isContainerId(id))
    return [...known, ...(await Promise.all(others.map(stateOf)))]
  }

  return {
    name,
    version: async () => (await command('--version')).stdout.split('\n')[0] ?? '',
    run,
    kill: async (id, signal) => {
      checkContainerId(id)
      await command('kill', id, signal).catch((error: unknown) => {
        if (!isGone(error)) throw error
      })
    },
    delete: remove,
    list,
  }
}

const isContainerId = (id: string): boolean => {
  try {
    return checkContainerId(id) === id
  } catch {
    return false
  }
}

function toState(entry: unknown): ContainerState | undefined {
  if (typeof entry !== 'object' || entry === null) return undefined
  const { id, pid, status, bundle } = entry as Partial<Record<keyof ContainerState, unknown>>
  if (typeof id !== 'string' || typeof status !== 'string' || typeof bundle !== 'string') return undefined
  return { id, pid: Number(pid ?? 0), status, bundle }
}

/** The answer of `list --format json`: an array, or `null` where runc has none. */
export function parseList(text: string): ContainerState[] {
  const entries: unknown = JSON.parse(text.trim() || 'null')
  return Array.isArray(entries) ? entries.flatMap((entry: unknown) => toState(entry) ?? []) : []
}
