/**
 * Which OCI runtime starts the containers: the one that was asked for, or with `auto` crun where a container
 * really starts with it, else runc. A version number does not tell: it depends on the cgroups, the kernel and what
 * the daemon itself runs in.
 */
import { chmod, lstat, mkdir, mkdtemp, open, readlink, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../host/eventually.ts'
import { reap } from '../host/native/process.ts'
import { type FaasError, toFaasError } from '../values/errors.ts'
import { type BundleHost, writeBundle } from './bundle.ts'
import type { RuntimeDeps } from './command-line.ts'
import { type BindMount, defaultLimits } from './container.ts'
import { createCrun } from './crun.ts'
import type { OciRuntime } from './oci-runtime.ts'
import { createRunc } from './runc.ts'

export type RuntimeChoice = 'runc' | 'crun' | 'auto'

export interface ChooseDeps extends RuntimeDeps {
  readonly host: BundleHost
  /** Where the trial's root is made for a moment; its parents must be open to others (o+x). */
  readonly directory: string
  /** Told why `auto` did not take crun. */
  readonly onRefused?: (reason: FaasError) => void
}

/** Answers the runtime for a choice. Only `auto` starts anything. */
export async function chooseRuntime(choice: RuntimeChoice, deps: ChooseDeps): Promise<OciRuntime> {
  if (choice === 'runc') return createRunc(deps)
  const crun = createCrun(deps)
  if (choice === 'crun') return crun
  try {
    await tryRuntime(crun, deps)
    return crun
  } catch (error) {
    deps.onRefused?.(toFaasError(error))
    return createRunc(deps)
  }
}

/** Programs and libraries of the host: directories are bound, links (of a merged /usr) are made again. */
const hostDirectories = ['/usr', '/bin', '/lib', '/lib64'] as const

async function makeTrialRoot(rootfs: string): Promise<BindMount[]> {
  const mounts: BindMount[] = []
  await mkdir(rootfs, { mode: 0o755 })
  for (const directory of ['/proc', '/dev', '/tmp']) await mkdir(join(rootfs, directory))
  for (const directory of hostDirectories) {
    const found = await lstat(directory).catch(() => undefined)
    if (found?.isSymbolicLink()) await symlink(await readlink(directory), join(rootfs, directory))
    if (!found?.isDirectory()) continue
    await mkdir(join(rootfs, directory))
    mounts.push({ source: directory, destination: directory, readOnly: true })
  }
  return mounts
}

/**
 * Starts the host's own `true` with the profile of every container, waits for its end, removes it. Throws what the
 * runtime throws; nothing is left either way.
 */
export async function tryRuntime(runtime: OciRuntime, deps: ChooseDeps): Promise<void> {
  await using undo = new AsyncDisposableStack()
  const bundle = await mkdtemp(join(deps.directory, 'trial-'))
  undo.defer(() => rm(bundle, { recursive: true, force: true }))
  await chmod(bundle, 0o711)
  const rootfs = join(bundle, 'rootfs')
  const mounts = await makeTrialRoot(rootfs)
  const id = `faas-trial-${process.pid}`
  await writeBundle(
    bundle,
    {
      id,
      rootfs,
      argv: ['/usr/bin/true'],
      env: [],
      cwd: '/',
      user: { uid: 0, gid: 0, additionalGids: [] },
      hostname: 'trial',
      limits: defaultLimits,
      contract: 'fd',
      mounts,
      cgroupParent: deps.cgroups.parent,
    },
    deps.host,
  )
  await using output = await open(join(bundle, 'output'), 'w')
  undo.defer(() => runtime.delete(id))
  const { pid } = await runtime.run({ id, bundle, stdout: output.fd, stderr: output.fd })
  await eventually(`the end of a trial container of ${runtime.name}`, () => {
    reap(pid)
    if (isRunning(pid)) throw new Error(`process ${pid} still runs`)
  })
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
