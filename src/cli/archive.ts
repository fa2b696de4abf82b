/**
 * Where the archive of `faas new` comes from: standard input, a file, or `docker save IMAGE` (`podman save` where there
 * is no docker). Failures: OPTION_INVALID, PROGRAM_MISSING, COMMAND_FAILED with the program's own last words.
 */
import { spawn } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { FaasError } from '../values/errors.ts'
import type { CliContext } from './context.ts'

export interface Archive {
  /** For people. */
  readonly description: string
  /** Of a file; unknown of a stream. */
  readonly bytes?: number
  readonly body: AsyncIterable<Uint8Array>
}

/** `source` is a file's path, else an image's name; `-` or nothing is standard input. */
export async function openArchive(source: string | undefined, context: CliContext): Promise<Archive> {
  if (source === undefined || source === '-') {
    if (context.stdin.isTTY) {
      throw new FaasError('OPTION_INVALID', 'there is no archive: standard input is the terminal', {
        hint: 'docker save IMAGE | faas new NAME, or faas new NAME FILE, or faas new NAME IMAGE',
      })
    }
    return { description: 'standard input', body: context.stdin }
  }
  const file = await stat(source).catch(() => undefined)
  if (file?.isDirectory()) {
    throw new FaasError('OPTION_INVALID', `${source} is a directory`, {
      hint: 'give the archive of docker save, or an image name',
    })
  }
  if (file)
    return {
      description: source,
      bytes: file.size,
      body: createReadStream(source, { highWaterMark: 256 * 1024 }),
    }
  // Names of images have slashes too, but none begins with one or with a dot, and none ends like an archive.
  if (/^[./]|\.(?:tar|tgz|tar\.(?:gz|zst))$/.test(source)) {
    throw new FaasError('OPTION_INVALID', `there is no file ${source}`, {
      hint: 'give the path of an archive made by docker save, or the name of an image',
    })
  }
  return { description: `the image ${source}`, body: saveImage(source) }
}

async function* saveImage(image: string): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* saveWith('docker', image)
  } catch (error) {
    if (!(error instanceof FaasError) || error.code !== 'PROGRAM_MISSING') throw error
    try {
      yield* saveWith('podman', image)
    } catch (second) {
      if (!(second instanceof FaasError) || second.code !== 'PROGRAM_MISSING') throw second
      throw new FaasError(
        'PROGRAM_MISSING',
        `there is no file ${image}, and no docker to save an image of that name`,
        {
          hint: 'give the path of an archive made by docker save, or install docker',
        },
      )
    }
  }
}

const keptStderrBytes = 2000

async function* saveWith(program: string, image: string): AsyncGenerator<Uint8Array, void, undefined> {
  const child = spawn(program, ['save', '--', image], { stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise<number | NodeJS.Signals | Error | null>((resolve) => {
    child.once('error', resolve)
    child.once('close', (code, signal) => resolve(code ?? signal))
  })
  let complaints = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints = (complaints + text).slice(-keptStderrBytes)
  })
  try {
    yield* child.stdout as AsyncIterable<Uint8Array>
    const end = await ended
    if (end === 0) return
    if (end instanceof Error && (end as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new FaasError('PROGRAM_MISSING', `${program} is not installed`)
    }
    const words = complaints.trim() || (end instanceof Error ? end.message : `it ended with ${end}`)
    throw new FaasError('COMMAND_FAILED', `${program} save ${image} failed: ${words}`, {
      hint: `see the images there are: ${program} images`,
    })
  } finally {
    child.kill()
  }
}
