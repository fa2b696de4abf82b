/**
 * A place for real containers: a root file system with Python and busybox as the images room would mount it, bundles,
 * cgroups, and each runtime that this machine has. Everything lies in a temporary directory and in the namespaces of
 * test/net/namespace.ts; the tree is kept in the tools cache.
 */
import { execFile } from 'node:child_process'
import { chmod, chown, copyFile, mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { cachedDirectory, toolsDirectory } from '../../packaging/tools/tools.ts'
import { eventually } from '../../src/host/eventually.ts'
import { exec } from '../../src/host/exec.ts'
import { readTextIfExists } from '../../src/host/files.ts'
import { becomeSubreaper, type ExitStatus, reap } from '../../src/host/native/process.ts'
import { type BundleHost, detectBundleHost, writeBundle } from '../../src/runtime/bundle.ts'
import { type Cgroups, createCgroups } from '../../src/runtime/cgroups.ts'
import { type ContainerSpec, defaultLimits } from '../../src/runtime/container.ts'
import { createCrun } from '../../src/runtime/crun.ts'
import type { OciRuntime, RunOptions } from '../../src/runtime/oci-runtime.ts'
import { createRunc } from '../../src/runtime/runc.ts'
import { ID_BASE } from '../../src/values/id-map.ts'
import { missingFor } from '../net/namespace.ts'

export const requirements = ['mmdebstrap', 'mount', 'umount', 'cp', 'chown']

const run = promisify(execFile)
const owner = `${ID_BASE}:${ID_BASE}`

/**
 * Python with ctypes, and busybox, as a tree of which container root owns all. The number rises with the recipe. The
 * first time it needs a Debian mirror, so it is called before a test file enters its own network namespace.
 */
export const prepareTree = (): Promise<string> =>
  cachedDirectory(toolsDirectory(process.env), 'runtime-tree-1', async (aside) => {
    const path = join(aside, 'tree')
    const options = ['--quiet', '--variant=extract', '--include=python3.11,busybox-static']
    await run('mmdebstrap', [...options, 'bookworm', path], { maxBuffer: 16 << 20 })
    await rm(join(path, 'dev'), { recursive: true, force: true })
    await run('chown', ['-hR', owner, path])
  })

/** Ours on top, as the images room has it: mount points, the probe, and a program that is setuid root inside. */
async function topLayer(directory: string, lower: string): Promise<string> {
  const top = join(directory, 'top')
  for (const name of ['', 'proc', 'dev', 'tmp', 'etc', 'app', 'setuid', 'home/app'])
    await mkdir(join(top, name), { recursive: true, mode: 0o755 })
  // runc gives a tmpfs the mode of the directory that it covers.
  await chmod(join(top, 'tmp'), 0o1777)
  await writeFile(join(top, 'control.sock'), '')
  await writeFile(join(top, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n')
  await writeFile(join(top, 'not-a-program'), 'text\n', { mode: 0o755 })
  await copyFile(join(import.meta.dirname, 'probe.py'), join(top, 'probe.py'))
  await copyFile(join(lower, 'bin/busybox'), join(top, 'setuid/id'))
  await run('chown', ['-hR', owner, top])
  await chmod(join(top, 'setuid/id'), 0o4755)
  return top
}

export type RuntimeName = 'runc' | 'crun'

export interface Ended extends ExitStatus {
  readonly stdout: string
  readonly stderr: string
}

export interface Started extends AsyncDisposable {
  readonly id: string
  readonly bundle: string
  readonly pid: number
  /** Waits for the end of the init and answers its status and all it printed. */
  ended(): Promise<Ended>
}

export interface World extends AsyncDisposable {
  readonly runtime: OciRuntime
  readonly cgroups: Cgroups
  readonly directory: string
  readonly stateRoot: string
  /** Starts a container; disposing of it deletes it. */
  start(changes: Partial<ContainerSpec>, options?: Pick<RunOptions, 'signal' | 'timeoutMs'>): Promise<Started>
  /** Starts a container, waits for its end and deletes it. */
  runToEnd(changes: Partial<ContainerSpec>): Promise<Ended>
  spec(changes: Partial<ContainerSpec>): ContainerSpec
}

const createRuntime = { runc: createRunc, crun: createCrun }

/** Why a runtime cannot be tested here, or undefined. */
export const missingRuntime = (name: RuntimeName): string | undefined => missingFor([name])

let sequence = 0

export async function createWorld(name: RuntimeName): Promise<World> {
  if (name === 'crun') await hideUnifiedHierarchy()
  await using undo = new AsyncDisposableStack()
  becomeSubreaper()
  const directory = await mkdtemp(join(tmpdir(), `faasd-${name}-`))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  await chmod(directory, 0o711)
  const lower = join(await prepareTree(), 'tree')
  const top = await topLayer(directory, lower)
  const rootfs = join(directory, 'rootfs')
  await mkdir(rootfs)
  await run('mount', ['-t', 'overlay', '-o', `ro,lowerdir=${top}:${lower}`, 'overlay', rootfs])
  undo.defer(async () => void (await run('umount', ['-l', rootfs])))
  const host = await detectBundleHost()
  const cgroups = createCgroups({ facts: host.cgroups, parent: `faasd-test-${name}-${Date.now()}` })
  undo.defer(() => cgroups.cleanUp())
  const stateRoot = join(directory, 'state')
  const runtime = createRuntime[name]({ exec, cgroups, stateRoot })

  const spec = (changes: Partial<ContainerSpec>): ContainerSpec => ({
    id: `faas-test-${++sequence}`,
    rootfs,
    argv: ['/bin/busybox', 'true'],
    env: [],
    cwd: '/',
    user: { uid: 0, gid: 0, additionalGids: [] },
    hostname: 'fibonacci',
    limits: defaultLimits,
    contract: 'fd',
    mounts: [],
    cgroupParent: cgroups.parent,
    ...changes,
  })
  const start: World['start'] = (changes, options = {}) =>
    startContainer(runtime, join(directory, 'bundles'), spec(changes), host, options)
  const remains = undo.move()
  return {
    runtime,
    cgroups,
    directory,
    stateRoot,
    spec,
    start,
    async runToEnd(changes) {
      await using container = await start(changes)
      return await container.ended()
    },
    [Symbol.asyncDispose]: () => remains.disposeAsync(),
  }
}

async function startContainer(
  runtime: OciRuntime,
  bundles: string,
  spec: ContainerSpec,
  host: BundleHost,
  options: Pick<RunOptions, 'signal' | 'timeoutMs'>,
): Promise<Started> {
  const { id } = spec
  const bundle = join(bundles, id)
  await mkdir(bundles, { recursive: true, mode: 0o711 })
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rm(bundle, { recursive: true, force: true }))
  await writeBundle(bundle, spec, host)
  const paths = { stdout: join(bundle, 'stdout'), stderr: join(bundle, 'stderr') }
  await using stdout = await open(paths.stdout, 'w')
  await using stderr = await open(paths.stderr, 'w')
  undo.defer(() => runtime.delete(id))
  const { pid } = await runtime.run({ id, bundle, stdout: stdout.fd, stderr: stderr.fd, ...options })
  const remains = undo.move()
  return {
    id,
    bundle,
    pid,
    ended: async () => {
      const status = await eventually(`the end of ${id}`, () => reap(pid) ?? fail(`${pid} runs`), {
        timeoutMs: 30_000,
      })
      const read = (path: string) => readFile(path, 'utf8')
      return { ...status, stdout: await read(paths.stdout), stderr: await read(paths.stderr) }
    },
    [Symbol.asyncDispose]: () => remains.disposeAsync(),
  }
}

function fail(message: string): never {
  throw new Error(message)
}

/**
 * crun before 1.9 refuses separate hierarchies when the unified one beside them has a controller. In our mount
 * namespace we show it the separate ones only.
 */
async function hideUnifiedHierarchy(): Promise<void> {
  const root = '/sys/fs/cgroup'
  const controllers = await readTextIfExists(`${root}/unified/cgroup.controllers`)
  if (controllers === undefined || controllers.trim() === '') return
  const names = (await run('ls', [root])).stdout
    .split('\n')
    .filter((name) => name !== '' && name !== 'unified')
  const view = await mkdtemp('/run/cgroup-')
  await run('mount', ['-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', view])
  for (const name of names) {
    await mkdir(join(view, name))
    await run('mount', ['--bind', join(root, name), join(view, name)])
  }
  await run('mount', ['--rbind', view, root])
  await run('umount', ['-l', view])
}

/** Gives a file of the host to a user of the containers. */
export const giveTo = (path: string, uid: number): Promise<void> => chown(path, ID_BASE + uid, ID_BASE + uid)
