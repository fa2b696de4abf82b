/**
 * Runs other programs: arguments as an array, never a shell, bounded output, a time limit.
 * Failures: PROGRAM_MISSING, COMMAND_TIMEOUT, COMMAND_FAILED (exit code and last lines of stderr).
 */
import { spawn } from 'node:child_process'
import { FaasError } from '../values/errors.ts'

export interface ExecOptions {
  readonly input?: string | Uint8Array
  readonly cwd?: string
  /** The whole environment of the child; our own when left out. */
  readonly env?: Readonly<Record<string, string>>
  /** Default 30,000. The child is killed past it. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
  /** Exit codes that are no failure. Default `[0]`. */
  readonly okCodes?: readonly number[]
}

export interface ExecResult {
  readonly stdout: string
  readonly stderr: string
  readonly code: number
}

export type Exec = (command: string, args: readonly string[], options?: ExecOptions) => Promise<ExecResult>

const maxOutputBytes = 16 * 1024 * 1024
const shownStderrLines = 5

export const exec: Exec = (command, args, options = {}) => {
  const { input, cwd, env, timeoutMs = 30_000, signal, okCodes = [0] } = options
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      ...(cwd === undefined ? {} : { cwd }),
      ...(env === undefined ? {} : { env }),
    })
    const stdout = collect(child.stdout)
    const stderr = collect(child.stderr)
    let stopped: FaasError | undefined
    const stop = (reason: FaasError) => {
      stopped ??= reason
      child.kill('SIGKILL')
    }
    const timer = setTimeout(
      () =>
        stop(new FaasError('COMMAND_TIMEOUT', `${shown(command, args)} took longer than ${timeoutMs} ms`)),
      timeoutMs,
    )
    const onAbort = () => stop(new FaasError('COMMAND_FAILED', `${shown(command, args)} was cancelled`))
    if (signal?.aborted) onAbort()
    signal?.addEventListener('abort', onAbort, { once: true })
    const settle = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
    child.on('error', (error: NodeJS.ErrnoException) => {
      settle()
      const missing = error.code === 'ENOENT' && error.syscall?.startsWith('spawn')
      reject(
        missing
          ? new FaasError('PROGRAM_MISSING', `the program ${command} is not installed`, {
              hint: `install ${command} and try again`,
              cause: error,
            })
          : new FaasError('COMMAND_FAILED', `${shown(command, args)}: ${error.message}`, { cause: error }),
      )
    })
    child.on('close', (code, killedBy) => {
      settle()
      if (stopped) return reject(stopped)
      const result = { stdout: stdout(), stderr: stderr(), code: code ?? 128 }
      if (code !== null && okCodes.includes(code)) return resolve(result)
      const ending = code === null ? `was ended by ${killedBy}` : `exited with ${code}`
      const words = result.stderr.trim().split('\n').slice(-shownStderrLines).join('\n')
      reject(new FaasError('COMMAND_FAILED', `${shown(command, args)} ${ending}${words ? `: ${words}` : ''}`))
    })
    if (child.stdin) {
      // A child that ends without reading its input is judged by its exit code, not by our EPIPE.
      child.stdin.on('error', () => {})
      child.stdin.end(input)
    }
  })
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: Buffer[] = []
  let bytes = 0
  stream?.on('data', (chunk: Buffer) => {
    if (bytes < maxOutputBytes) chunks.push(chunk)
    bytes += chunk.length
  })
  return () => Buffer.concat(chunks).toString('utf8')
}

const shown = (command: string, args: readonly string[]): string => [command, ...args].join(' ').slice(0, 300)
