/**
 * One instance: a container from its start to the last trace of it. What exists of it while it lives is its bundle
 * (`bundles/ID`), its directory of sockets and FIFOs (`RUN/i/ID`), the container with its cgroup, and one pidfd here.
 * When its init ends, for whatever reason, all of it is removed. A daemon that dies leaves the container running;
 * the next one finds it by its directory ({@link adoptInstance}).
 */
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isUnused } from '../contracts/fd.ts'
import type { ServedFunction, VersionId } from '../functions/function.ts'
import { removeTree } from '../host/files.ts'
import { type ExitStatus, pidfdOpen, pidfdSignal, reapPidfd } from '../host/native/process.ts'
import { closeFd } from '../host/native/sockets.ts'
import { type BundleHost, writeBundle } from '../runtime/bundle.ts'
import type { BindMount } from '../runtime/container.ts'
import type { OciRuntime } from '../runtime/oci-runtime.ts'
import { toFaasError } from '../values/errors.ts'
import { mountWritableRoot, removeBundle, writePlatformFiles } from './instance-root.ts'
import { type OutputDeps, openOutput } from './output.ts'

const SIGKILL = 9

export interface InstanceDeps extends OutputDeps {
  readonly runtime: OciRuntime
  /** `FAAS_ROOT/bundles`. */
  readonly bundles: string
  /** `/run/faasd/i`. */
  readonly runDirectory: string
  readonly cgroupParent: string
  /** What the host is, found once at start (`detectBundleHost()`). */
  readonly bundleHost: BundleHost
}

export interface Instance {
  readonly id: string
  /** Of the container's init. */
  readonly pid: number
  /** The version it runs; undefined where an earlier daemon has not told. */
  readonly versionId: VersionId | undefined
  /** Resolves when nothing of the instance is left; never rejects. Undefined where the status is not known. */
  readonly ended: Promise<ExitStatus | undefined>
  /** Sends a signal, by its number, to the init. Nothing happens when it has ended. */
  signal(number: number): void
  /** Ends every process of the instance at once. Idempotent. */
  kill(): void
}

/** `faas-NAME-` and 8 hex digits: the guide finds bundles by `faas-*`, a person their function by its name. */
const newId = (fn: ServedFunction): string => `faas-${fn.name}-${randomBytes(4).toString('hex')}`

/** What a contract puts into a container, and disposes of with it. */
export interface Attachment extends Disposable {
  readonly mounts: readonly BindMount[]
  /** Where the runtime sends the descriptor of supervised calls; none are supervised when left out. */
  readonly seccompListener?: string
}

/**
 * Starts an instance. `attach` makes the contract's part of it, in the instance's directory.
 * Throws RUNTIME_FAILED when the container cannot be started; then nothing of it is left.
 */
export async function startInstance(
  fn: ServedFunction,
  attach: (directory: string) => Attachment,
  deps: InstanceDeps,
): Promise<Instance> {
  const id = newId(fn)
  const directory = join(deps.runDirectory, id)
  const bundle = join(deps.bundles, id)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => removeTree(directory))
  await mkdir(directory, { mode: 0o700 })
  await writeFile(join(directory, versionFile), fn.versionId)
  const output = undo.use(openOutput(directory, fn.name, id, deps))
  const attachment = undo.use(attach(directory))
  undo.defer(() => removeBundle(bundle))
  await mkdir(bundle, { mode: 0o711 })
  const files = await writePlatformFiles(directory, fn)
  const rootfs = fn.options.writable ? await mountWritableRoot(bundle, fn) : fn.rootfs
  const spec = {
    id,
    rootfs,
    writable: fn.options.writable,
    argv: fn.argv,
    env: fn.env,
    cwd: fn.cwd,
    user: fn.user,
    hostname: fn.name,
    limits: fn.options.limits,
    contract: fn.contract,
    mounts: [...files, ...attachment.mounts],
    scratch: fn.scratch,
    cgroupParent: deps.cgroupParent,
    ...(attachment.seccompListener === undefined ? {} : { seccompListener: attachment.seccompListener }),
  }
  await writeBundle(bundle, spec, deps.bundleHost)
  undo.defer(() => deps.runtime.delete(id))
  const { pid } = await output.withWriters((stdout, stderr) =>
    deps.runtime.run({ id, bundle, stdout, stderr }),
  )
  return watchInstance({ id, pid, versionId: fn.versionId }, undo, deps)
}

export interface FoundContainer {
  readonly id: string
  readonly pid: number
}

/**
 * Takes over a container that an earlier daemon started, so that the request it holds can finish. Undefined when it
 * never got a connection and nobody can give it one any more, or has ended: then all of it is removed.
 */
export async function adoptInstance(
  container: FoundContainer,
  deps: InstanceDeps,
): Promise<{ readonly instance: Instance; readonly functionName: string } | undefined> {
  const { id, pid } = container
  const directory = join(deps.runDirectory, id)
  const functionName = functionNameOf(id)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => removeTree(directory))
  undo.defer(() => removeBundle(join(deps.bundles, id)))
  undo.defer(() => deps.runtime.delete(id))
  const waits = !existsSync(directory) || isUnused(directory)
  if (functionName === undefined || waits) return undefined
  undo.use(openOutput(directory, functionName, id, deps))
  const versionId = versionOf(id, deps)
  return { instance: watchInstance({ id, pid, versionId }, undo, deps), functionName }
}

/** Removes directories and bundles of instances whose containers are gone: `keep` are those that live. */
export async function removeLeftInstances(
  keep: ReadonlySet<string>,
  deps: InstanceDeps,
): Promise<readonly string[]> {
  const removed = new Set<string>()
  for (const parent of [deps.runDirectory, deps.bundles]) {
    for (const id of await readdir(parent)) {
      if (!idForm.test(id) || keep.has(id)) continue
      removed.add(id)
      try {
        await deps.runtime.delete(id)
        await (parent === deps.bundles ? removeBundle : removeTree)(join(parent, id))
      } catch (error) {
        // One that cannot be removed now, with a process that the kernel does not let go, must not keep us from serving.
        deps.log.error(id, `could not be removed: ${toFaasError(error).message}`)
      }
    }
  }
  return [...removed]
}

/** Names the version in an instance's directory, for a daemon that comes back. */
const versionFile = 'version'

/** The version that an instance runs, if whoever started it has told. */
export function versionOf(
  id: string,
  { runDirectory }: Pick<InstanceDeps, 'runDirectory'>,
): VersionId | undefined {
  try {
    return readFileSync(join(runDirectory, id, versionFile), 'utf8')
  } catch {
    return undefined
  }
}

const idForm = /^faas-([a-z0-9-]+)-[0-9a-f]{8}$/

/** The name of the function in an instance's id, or undefined where the id is not one of ours. */
export const functionNameOf = (id: string): string | undefined => idForm.exec(id)?.[1]

/** Waits for the end of the container's init and then disposes of what `undo` holds, which is taken over. */
function watchInstance(
  { id, pid, versionId }: Pick<Instance, 'id' | 'pid' | 'versionId'>,
  undo: AsyncDisposableStack,
  deps: Pick<InstanceDeps, 'poller' | 'log'>,
): Instance {
  const pidfd = pidfdOpen(pid)
  const { promise: initEnded, resolve } = Promise.withResolvers<ExitStatus | undefined>()
  let open = pidfd !== undefined
  if (pidfd === undefined) resolve(undefined)
  else {
    deps.poller.watch(pidfd, () => {
      deps.poller.unwatch(pidfd)
      const status = reapPidfd(pidfd)
      open = false
      closeFd(pidfd)
      resolve(status)
    })
  }
  // Only now: until the end is watched, whoever started it cleans up.
  const remains = undo.move()
  const dispose = async (): Promise<ExitStatus | undefined> => {
    const status = await initEnded
    try {
      await remains.disposeAsync()
    } catch (error) {
      // The next start of the daemon finds what is left; the connection's fate does not hang on it.
      deps.log.error(id, `could not be removed entirely: ${String(error)}`)
    }
    return status
  }
  const signal = (number: number): void => {
    if (pidfd !== undefined && open) pidfdSignal(pidfd, number)
  }
  return {
    id,
    pid,
    versionId,
    ended: dispose(),
    signal,
    kill: () => signal(SIGKILL),
  }
}
