/**
 * One machine of a lab, seen from outside: runs programs in it. A program gets the machine's namespaces, cgroup, home and
 * PATH, and the caller's working directory unless another is asked for. It ends when the caller does.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { type ExecOptions, type ExecResult, exec } from '../../src/host/exec.ts'

/** What is kept of a machine, in lab.json. */
export interface MachineRecord {
  readonly name: string
  /** Process 1 of the machine, as the host numbers it. */
  readonly pid: number
  /** Its addresses on the "internet". */
  readonly ipv4: string
  readonly ipv6: string
}

export interface RunOptions extends Omit<ExecOptions, 'env'> {
  /** Added to the machine's own environment. */
  readonly env?: Readonly<Record<string, string>>
}

export interface Machine extends MachineRecord {
  /** The machine's place in the lab's directory: `home/`, `faasd/` (its /var/lib/faasd), `upper/etc` and so on. */
  readonly directory: string
  /** Runs a program to its end; as src/host/exec.ts says, a failure throws. */
  exec(argv: readonly string[], options?: RunOptions): Promise<ExecResult>
  /** Runs a test's own text by bash, with -e, -u and pipefail. Answers its stdout. */
  sh(text: string, options?: RunOptions): Promise<string>
  /** Starts a program and answers at once. */
  spawn(argv: readonly string[], options?: SpawnOptions): RunningProgram
}

export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** As of child_process; by default stdin is empty, stdout and stderr are kept for `output()`. */
  readonly stdio?: StdioOptions
}

export interface RunningProgram extends AsyncDisposable {
  /** The helper that entered the machine: its stdio is the program's. */
  readonly child: ChildProcess
  /** stdout and stderr so far, as they came. */
  output(): string
  /** Signals the program itself. */
  kill(signal?: NodeJS.Signals): void
  /** The exit code; 128 and the signal's number when it was killed, as shells say. */
  readonly exited: Promise<number>
}

const machinePath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

const enterScript = join(import.meta.dirname, 'enter.sh')

export function openMachine(record: MachineRecord, directory: string): Machine {
  const enter = (argv: readonly string[], cwd: string): string[] => [
    ...[
      '--pdeathsig',
      'KILL',
      'nsenter',
      '--target',
      String(record.pid),
      '--mount',
      '--net',
      '--pid',
      '--uts',
      '--ipc',
      '--cgroup',
      '--',
    ],
    ...[enterScript, directory, cwd, ...argv],
  ]
  const environment = (more: Readonly<Record<string, string>> = {}): Record<string, string> => {
    const { PATH = '' } = process.env
    // The caller's own faasd settings are not the machine's.
    const inherited = Object.fromEntries(
      Object.entries(process.env).filter(
        (pair): pair is [string, string] =>
          pair[1] !== undefined && (!pair[0].startsWith('FAAS_') || pair[0] === 'FAAS_TOOLS_DIR'),
      ),
    )
    return {
      ...inherited,
      PATH: `${machinePath}:${PATH}`,
      HOME: join(directory, 'home'),
      USER: 'root',
      ...more,
    }
  }
  const machine: Machine = {
    ...record,
    directory,
    exec: (argv, { cwd, env, ...options } = {}) =>
      exec('setpriv', enter(argv, cwd ?? process.cwd()), { ...options, env: environment(env) }),
    sh: async (text, options) =>
      (await machine.exec(['bash', '-euo', 'pipefail', '-c', text], options)).stdout,
    spawn(argv, options = {}) {
      const child = spawn('setpriv', enter(argv, options.cwd ?? process.cwd()), {
        env: environment(options.env),
        stdio: options.stdio ?? ['ignore', 'pipe', 'pipe'],
      })
      return runningProgram(child)
    },
  }
  return machine
}

function runningProgram(child: ChildProcess): RunningProgram {
  const parts: Buffer[] = []
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (part: Buffer) => parts.push(part))
  const exited = new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) =>
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])),
    )
  })
  exited.catch(() => {})
  const kill = (signal: NodeJS.Signals = 'SIGTERM') => {
    for (const pid of childrenOf(child.pid)) signalIfThere(pid, signal)
  }
  return {
    child,
    exited,
    kill,
    output: () => Buffer.concat(parts).toString(),
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      kill('SIGKILL')
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}

/** nsenter's only child is the program: same process, through sh and setpriv. */
function childrenOf(pid: number | undefined): number[] {
  if (pid === undefined) return []
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
