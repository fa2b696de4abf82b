/**
 * Images for tests and the demo, as `docker save` archives: a base layer (bases.ts) and one layer of files. Archives lie in
 * a temporary directory that goes when the process exits.
 */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { toolsDirectory } from '../../packaging/tools/tools.ts'
import { type ArchiveOptions, type ImageConfigInput, type ImageInput, writeImageArchive } from './archive.ts'
import { type Base, baseLayer } from './bases.ts'
import { type TarEntry, writeTar } from './tar.ts'

export interface TestImage {
  /** The repository; the tag is `latest` unless said as `name:tag`. */
  readonly name: string
  readonly base?: Base
  /** Layers above the base, bottom first. */
  readonly layers?: readonly (readonly TarEntry[])[]
  readonly config?: ImageConfigInput
}

export interface PythonImage {
  readonly name: string
  /** Python source, put at /app/handler.py. */
  readonly handler: string
  /** Default `python`. */
  readonly base?: 'python' | 'python-ctypes'
  readonly cmd?: readonly string[]
  readonly entrypoint?: readonly string[]
  readonly user?: string
  readonly env?: readonly string[]
  readonly workingDir?: string
  /** More files of the image. */
  readonly files?: readonly TarEntry[]
}

const scratchPrefix = 'faasd-images-'
/** No process that builds images lives as long as this. */
const staleMs = 2 * 3_600_000
let scratch: string | undefined
let count = 0

/** Writes the archive of one image and answers its path. */
export const buildImage = (image: TestImage, options: ArchiveOptions = {}): Promise<string> =>
  buildArchive([image], options)

/** Writes one archive of several images and answers its path. */
export async function buildArchive(
  images: readonly TestImage[],
  options: ArchiveOptions = {},
): Promise<string> {
  const inputs: ImageInput[] = []
  for (const image of images) {
    const layers = image.base === undefined ? [] : [await baseLayer(image.base, toolsDirectory(process.env))]
    for (const entries of image.layers ?? []) {
      const layer = scratchPath('layer.tar')
      await writeTar(layer, entries)
      layers.push(layer)
    }
    const tag = image.name.includes(':') ? image.name : `${image.name}:latest`
    inputs.push({ tags: [tag], layers, config: image.config ?? {} })
  }
  const output = scratchPath(`${images[0]?.name.replaceAll(/[^a-z0-9]/g, '-') ?? 'empty'}.tar`)
  await writeImageArchive(output, inputs, options)
  return output
}

/** An image of Python with `handler` at /app/handler.py, run by `python3 /app/handler.py` unless `cmd` says otherwise. */
export function buildPythonImage(image: PythonImage, options: ArchiveOptions = {}): Promise<string> {
  const config: ImageConfigInput = {
    Cmd: image.cmd ?? ['python3', '/app/handler.py'],
    Env: ['PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin', ...(image.env ?? [])],
    ...(image.entrypoint === undefined ? {} : { Entrypoint: image.entrypoint }),
    ...(image.user === undefined ? {} : { User: image.user }),
    ...(image.workingDir === undefined ? {} : { WorkingDir: image.workingDir }),
  }
  const app: TarEntry[] = [
    { path: 'app', type: 'directory' },
    { path: 'app/handler.py', content: image.handler },
    ...(image.files ?? []),
  ]
  return buildImage({ name: image.name, base: image.base ?? 'python', layers: [app], config }, options)
}

/** The example of functions/fibonacci. */
export async function fibonacciImage(options: ArchiveOptions = {}): Promise<string> {
  const handler = join(import.meta.dirname, '../../functions/fibonacci/handler.py')
  return buildPythonImage({ name: 'fibonacci', handler: await readFile(handler, 'utf8') }, options)
}

function scratchPath(name: string): string {
  if (scratch === undefined) {
    sweepScratch()
    const made = mkdtempSync(join(tmpdir(), scratchPrefix))
    scratch = made
    process.once('exit', () => rmSync(made, { recursive: true, force: true }))
  }
  count += 1
  return join(scratch, `${count}-${name}`)
}

/** Removes what processes left that were killed. */
function sweepScratch(): void {
  for (const name of readdirSync(tmpdir())) {
    const path = join(tmpdir(), name)
    const made = name.startsWith(scratchPrefix)
      ? statSync(path, { throwIfNoEntry: false })?.mtimeMs
      : undefined
    if (made !== undefined && Date.now() - made > staleMs) rmSync(path, { recursive: true, force: true })
  }
}
