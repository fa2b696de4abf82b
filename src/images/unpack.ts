/**
 * Runs the work on one layer: the program that checks and renders it ({@link ./layer-program.ts}) and, for a layer
 * that is new, GNU tar behind it. Bytes go from one to the other without passing through us.
 * Failures: those of {@link runLayerJob}, IMAGE_LAYER_INVALID for what tar refuses, DISK_FULL, COMMAND_FAILED,
 * COMMAND_TIMEOUT, PROGRAM_MISSING, or the signal's reason. No process is left when the promise settles.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { type ErrorCode, errorCodes, FaasError } from '../values/errors.ts'
import type { LayerJob, LayerReport } from './layer-job.ts'
import { invalid } from './layer-paths.ts'
import type { LayerAnswer } from './layer-program.ts'
import { inUnpackRoot, tarCommand } from './unpack-root.ts'

export interface UnpackTarget {
  /** An empty directory that belongs to root of the namespace. */
  readonly directory: string
  /** Descriptor of the user namespace ({@link openUnpackNamespace}); stays the caller's. */
  readonly namespace: number
}

export interface UnpackOptions {
  /** Where a new layer goes; without it the layer is checked and no more. */
  readonly target?: UnpackTarget
  /** Descriptor of the spool file; stays the caller's. */
  readonly spool: number
  /** Where Node keeps the compiled program: half of its start is saved. Nobody but root may write there. */
  readonly cache: string
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

const layerProgram = fileURLToPath(new URL('./layer-program.ts', import.meta.url))
const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }
/** A layer at the bounds of {@link ImageLimits} takes a fifth of it. */
const heapMebibytes = 512
const keptWords = 4096
const keptAnswer = 64 * 1024
const shownWords = 400

export async function runLayer(job: Omit<LayerJob, 'render'>, options: UnpackOptions): Promise<LayerReport> {
  const { target, spool, cache, timeoutMs, signal } = options
  signal?.throwIfAborted()
  const jobText = JSON.stringify({ ...job, render: target !== undefined } satisfies LayerJob)
  const program = start(
    process.execPath,
    [`--max-old-space-size=${heapMebibytes}`, layerProgram, jobText],
    // Standard input stays open while we live: when it ends, so does the program.
    ['pipe', target ? 'pipe' : 'ignore', 'pipe', spool, 'pipe'],
    { env: { ...environment, NODE_COMPILE_CACHE: cache } },
  )
  const answerText = keepText(program.child.stdio[4] as Readable, keptAnswer)
  const unpacker = target && startUnpacker(target, program.child.stdout as Readable)

  let stopped: unknown
  const stop = (reason: unknown) => {
    stopped ??= reason
    program.child.kill('SIGKILL')
    if (unpacker) endUnpacker(unpacker.child)
  }
  const onAbort = () => stop(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  const timer = setTimeout(
    () =>
      stop(new FaasError('COMMAND_TIMEOUT', `layer ${job.index} took longer than ${timeoutMs} ms to unpack`)),
    timeoutMs,
  )
  try {
    const [checked, unpacked] = await Promise.all([program.ended, unpacker?.ended])
    if (stopped !== undefined) throw stopped
    return judge(job.index, checked, unpacked, answerText())
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}

function startUnpacker(target: UnpackTarget, input: Readable): Started {
  const [command, ...args] = inUnpackRoot(tarCommand)
  const unpacker = start(command, args, [input, 'ignore', 'pipe', target.namespace], {
    cwd: target.directory,
    env: environment,
  })
  // The child has its own descriptor. Ours would keep the program from noticing that tar is gone.
  input.destroy()
  return unpacker
}

/**
 * Kills the first process of the unpacker's PID namespace, and so all of it. `unshare`, which waits for that one,
 * then ends by itself; killed before it, it would leave its child to be waited for by nobody.
 */
function endUnpacker(unshare: ChildProcess): void {
  const children = childrenOf(unshare.pid)
  if (children.length === 0) unshare.kill('SIGKILL')
  for (const pid of children) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has just ended.
    }
  }
}

function childrenOf(pid: number | undefined): readonly number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    return text.split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

interface Ended {
  readonly code: number | null
  /** The last of standard error. */
  readonly words: string
  /** Why it could not be started. */
  readonly failure?: FaasError
}

interface Started {
  readonly child: ChildProcess
  /** Settles when the process is gone and its pipes are closed; never rejects. */
  readonly ended: Promise<Ended>
}

function start(
  command: string,
  args: readonly string[],
  stdio: StdioOptions,
  place: { readonly cwd?: string; readonly env: Readonly<Record<string, string>> },
): Started {
  const child = spawn(command, args, { stdio, ...place })
  const words = keepText(child.stderr as Readable, keptWords)
  child.stdin?.on('error', () => {})
  const ended = new Promise<Ended>((resolve) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      const missing = error.code === 'ENOENT'
      const failure = new FaasError(
        missing ? 'PROGRAM_MISSING' : 'COMMAND_FAILED',
        missing ? `the program ${command} is not installed` : `${command}: ${error.message}`,
        { hint: 'install tar and util-linux', cause: error },
      )
      if (child.pid === undefined) resolve({ code: null, words: '', failure })
    })
    child.once('close', (code) => resolve({ code, words: words() }))
  })
  return { child, ended }
}

/** The last `bytes` bytes of a stream, as text. */
function keepText(stream: Readable, bytes: number): () => string {
  let kept = Buffer.alloc(0)
  stream.on('data', (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]).subarray(-bytes)
  })
  stream.on('error', () => {})
  return () => kept.toString('utf8')
}

/** What the two said, in the order of who knows better. */
function judge(index: number, checked: Ended, unpacked: Ended | undefined, answerText: string): LayerReport {
  const failure = checked.failure ?? unpacked?.failure
  if (failure) throw failure
  const answer = parseAnswer(answerText)
  // Any code but INTERNAL is a verdict on the layer. INTERNAL may just mean that tar was gone.
  if (answer && 'error' in answer && answer.error.code !== 'INTERNAL') throw asError(answer.error)
  if (unpacked && unpacked.code !== 0) throw unpackError(index, unpacked)
  if (answer && 'error' in answer) throw asError(answer.error)
  if (answer) return answer.report
  throw new FaasError('COMMAND_FAILED', `the check of layer ${index} ended early: ${lastWords(checked)}`)
}

function parseAnswer(text: string): LayerAnswer | undefined {
  return text.endsWith('\n') ? (JSON.parse(text) as LayerAnswer) : undefined
}

function asError({
  code,
  message,
  hint,
}: {
  code: string
  message: string
  hint?: string | undefined
}): FaasError {
  const known: ErrorCode = code in errorCodes ? (code as ErrorCode) : 'INTERNAL'
  return new FaasError(known, message, hint === undefined ? {} : { hint })
}

const lastWords = ({ code, words }: Ended): string =>
  words.trim().split('\n').slice(-3).join(' ').slice(-shownWords) || `exit code ${code}`

function unpackError(index: number, ended: Ended): FaasError {
  // "Wrote only" is how tar reports the write that met the end of the disk half-way.
  if (/No space left on device|Disk quota exceeded|Wrote only \d+ of/.test(ended.words)) {
    return new FaasError('DISK_FULL', `no space left to unpack layer ${index}`)
  }
  const said = lastWords(ended)
  // GNU tar: 2 is a failure of its own. Whatever else there is comes from the set-up of its root.
  if (ended.code === 2 && ended.words.includes('tar: '))
    return invalid(`layer ${index} cannot be unpacked: ${said}`)
  return new FaasError('COMMAND_FAILED', `layer ${index} cannot be unpacked: ${said}`)
}
