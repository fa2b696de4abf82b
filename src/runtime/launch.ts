/**
 * Starts a runtime's own process for `run --detach` and waits for it: what it is given as stdin, stdout and stderr
 * becomes the container's. Failures: PROGRAM_MISSING; how it ended otherwise is told, not thrown.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, constants, fchownSync, fstatSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeFifo } from '../host/native/fifo.ts'
import { FaasError } from '../values/errors.ts'
import { oomScoreAdj } from './container.ts'
import type { RunOptions } from './oci-runtime.ts'

/** All that a runtime gets of an environment: nothing of the daemon's can leak into a container. */
export const runtimeEnvironment = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }

const defaultRunTimeoutMs = 30_000

/** What is read here of a `config.json` that bundle.ts has written. */
interface WrittenBundle {
  readonly process: { readonly user: { readonly uid: number } }
  readonly linux: { readonly uidMappings: readonly { readonly hostID: number }[] }
}

/**
 * Gives the container's user its stdout and stderr, so that it can open /dev/stdout and /dev/stderr: crun does so,
 * runc cannot do it for a user namespace. A device would be the host's own and is refused.
 */
async function giveOutput({ bundle, stdout, stderr }: RunOptions): Promise<void> {
  const { process, linux } = JSON.parse(await readFile(join(bundle, 'config.json'), 'utf8')) as WrittenBundle
  const owner = (linux.uidMappings[0]?.hostID ?? 0) + process.user.uid
  for (const descriptor of [stdout, stderr]) {
    const found = fstatSync(descriptor)
    if (found.isCharacterDevice()) throw new FaasError('INTERNAL', 'a container cannot print to a device')
    fchownSync(descriptor, owner, found.gid)
  }
}

/**
 * Starts a runtime with an empty pipe as stdin. Not /dev/null: crun gives the three descriptors to the container's
 * user, and it would own the host's node. Not a socket: one would belong to the host's network namespace.
 */
function start(
  program: string,
  args: readonly string[],
  { bundle, stdout, stderr }: RunOptions,
): ChildProcess {
  const path = join(bundle, 'stdin')
  makeFifo(path)
  const stdin = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    // poll() sees the end of a FIFO only after it has had a writer.
    closeSync(openSync(path, constants.O_WRONLY))
    rmSync(path)
    const child = spawn(program, args, {
      stdio: [stdin, stdout, stderr],
      env: runtimeEnvironment,
      detached: true,
    })
    if (child.pid !== undefined) raiseOomScore(child.pid)
    return child
  } finally {
    closeSync(stdin)
  }
}

/**
 * The lowest score that a process may give itself is inherited too. Set for the runtime with the daemon's capability,
 * it holds for the container; what the runtime sets inside the user namespace alone could be lowered again.
 */
function raiseOomScore(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(oomScoreAdj))
  } catch {
    // it has ended already; its exit code tells
  }
}

export interface Ending {
  readonly code: number | null
  readonly killedBy: string | undefined
}

/**
 * Waits for a runtime's own process. It is started in a session of its own, so that one signal ends it with its
 * helpers, and Ctrl-C in the daemon's terminal does not reach it.
 */
function ending(child: ChildProcess, program: string, options: RunOptions): Promise<Ending> {
  const { signal, timeoutMs = defaultRunTimeoutMs } = options
  return new Promise((resolve, reject) => {
    let killedBy: string | undefined
    const stop = (why: string) => {
      killedBy ??= why
      if (child.pid !== undefined) killGroup(child.pid)
    }
    const onAbort = () => stop('it was cancelled')
    const timer = setTimeout(() => stop(`it took longer than ${timeoutMs} ms`), timeoutMs)
    const settle = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    if (signal?.aborted) onAbort()
    child.once('error', (error: NodeJS.ErrnoException) => {
      settle()
      reject(
        error.code === 'ENOENT'
          ? new FaasError('PROGRAM_MISSING', `the program ${program} is not installed`, {
              hint: `install ${program} and try again`,
              cause: error,
            })
          : new FaasError('RUNTIME_FAILED', `${program} cannot be started: ${error.message}`, {
              cause: error,
            }),
      )
    })
    child.once('exit', (code) => {
      settle()
      resolve({ code, killedBy })
    })
  })
}

function killGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL')
  } catch {
    // it ended by itself
  }
}

/** Starts the program and answers how it ended; past the time limit or at an abort it is killed. */
export async function launch(program: string, args: readonly string[], options: RunOptions): Promise<Ending> {
  await giveOutput(options)
  return await ending(start(program, args, options), program, options)
}
