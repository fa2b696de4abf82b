/**
 * From a body to an image that is ready to be moved into the store, in the order of the steps: spool and hash; choose
 * the image and read its config; check every layer and unpack the new ones; look at the result; sync. All of it lies
 * in one staging directory, which the caller removes whatever happens.
 */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { Exec } from '../host/exec.ts'
import type { Reach } from '../host/failpoints.ts'
import { type Digest, digestOfHex, hexOf } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import { type Archive, type ArchiveFile, spoolArchive } from './archive.ts'
import { checkMountPoints } from './base-layer.ts'
import type { Image } from './image.ts'
import { goArchitecture, parseImageConfig } from './image-config.ts'
import { inParallel } from './in-parallel.ts'
import { type Layers, openLayer, stageLayer } from './layers.ts'
import type { ImageLimits } from './limits.ts'
import { treesOf } from './rootfs.ts'
import { selectImage } from './select.ts'
import type { SelectedImage } from './selection.ts'
import { runLayer, type UnpackTarget } from './unpack.ts'
import { openUnpackNamespace } from './unpack-namespace.ts'
import { readUpload } from './upload.ts'

export interface ReceiveProgress {
  readonly step: 'receive' | 'verify' | 'unpack'
  /** For people. */
  readonly message: string
  /** How many have arrived so far, in step `receive`. */
  readonly bytes?: number
}

export interface ReceiveOptions {
  /** Which image of several: its name, with or without tag. */
  readonly pick?: string | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: ReceiveProgress) => void) | undefined
}

export interface StageDeps {
  /** An empty directory on the store's file system. */
  readonly staging: string
  /** {@link UnpackOptions.cache} */
  readonly cache: string
  readonly layers: Layers
  readonly limits: ImageLimits
  readonly exec: Exec
  /** Protects layers from collection from now on, and answers which of them the store has. */
  readonly claim: (layers: ReadonlySet<Digest>) => Promise<ReadonlySet<Digest>>
  /** D3 to D6 (docs/ARCHITECTURE.md). */
  readonly reach: Reach
}

export interface StagedImage {
  readonly image: Image
  /** New layers, in directories as {@link stageLayer} makes them. They are synced to disk. */
  readonly newLayers: ReadonlyMap<Digest, string>
}

/** Layers that are unpacked at the same time. */
const parallelLayers = 2
const progressBytes = 16 * 1024 * 1024
const syncTimeoutMs = 10 * 60_000

export async function stageImage(
  body: AsyncIterable<Uint8Array>,
  options: ReceiveOptions,
  deps: StageDeps,
): Promise<StagedImage> {
  const { staging, limits, reach } = deps
  const report = options.onProgress ?? (() => {})
  await using spool = await open(join(staging, 'archive'), 'wx+', 0o600)
  const upload = readUpload(body, options.signal)
  const archive = await spoolArchive(upload, spool, limits, reportBytes(report))
  await reach('D3')
  report({ step: 'verify', message: 'checking the image' })
  const architecture = goArchitecture(process.arch)
  const selected = await selectImage(archive, { pick: options.pick, architecture, limits })
  const image = await readConfig(archive, selected, architecture, limits)
  await reach('D4')
  const newLayers = await unpackLayers(image, selected.layers, spool.fd, options, deps)
  const place = (layer: Digest) => {
    const staged = newLayers.get(layer)
    return staged === undefined ? deps.layers.open(layer) : openLayer(staged)
  }
  await checkMountPoints(await treesOf(image.layers, place))
  await reach('D5')
  // The archive has done its work: it need not go through the disk with the rest.
  await spool.truncate(0)
  if (newLayers.size > 0) await deps.exec('sync', ['--file-system', staging], { timeoutMs: syncTimeoutMs })
  await reach('D6')
  options.signal?.throwIfAborted()
  return { image, newLayers }
}

function reportBytes(report: (progress: ReceiveProgress) => void): (bytes: number) => void {
  let next = 0
  return (bytes) => {
    if (bytes < next) return
    next = bytes + progressBytes
    report({ step: 'receive', message: `received ${mebibytes(bytes)}`, bytes })
  }
}

const mebibytes = (bytes: number): string => `${Math.round(bytes / 1024 ** 2)} MiB`

async function readConfig(
  archive: Archive,
  selected: SelectedImage,
  architecture: string,
  limits: ImageLimits,
): Promise<Image> {
  const { config, statedConfigHash } = selected
  if (config.size > limits.documentBytes) {
    throw new FaasError('IMAGE_CONFIG_INVALID', `the image config has ${config.size} bytes`, {
      hint: `at most ${limits.documentBytes} are read`,
    })
  }
  if (statedConfigHash !== undefined && statedConfigHash !== config.hash) {
    throw new FaasError(
      'IMAGE_DIGEST_MISMATCH',
      `the image config is sha256:${config.hash}, its name says sha256:${statedConfigHash}`,
      { hint: 'the archive is damaged: save the image again' },
    )
  }
  const parsed = parseImageConfig(await archive.read(config), { architecture, maxLayers: limits.layers })
  if (parsed.layers.length !== selected.layers.length) {
    throw new FaasError(
      'IMAGE_CONFIG_INVALID',
      `the archive has ${selected.layers.length} layers for the image, its config names ${parsed.layers.length}`,
      { hint: 'save the image again' },
    )
  }
  return { id: digestOfHex(config.hash), ...parsed }
}

/** Checks all layers; answers the staged directories of those that the store lacks. */
async function unpackLayers(
  image: Image,
  files: readonly ArchiveFile[],
  spool: number,
  options: ReceiveOptions,
  { staging, cache, limits, claim }: StageDeps,
): Promise<Map<Digest, string>> {
  const present = await claim(new Set(image.layers))
  const staged = new Map<Digest, string>()
  const work = image.layers.map((layer, index) => {
    const known = present.has(layer) || staged.has(layer)
    const directory = join(staging, hexOf(layer))
    if (!known) staged.set(layer, directory)
    return { layer, index, file: files[index] as ArchiveFile, directory: known ? undefined : directory }
  })
  // Uncompressed layers were hashed on arrival: where that is the diff ID and nothing is to be unpacked, all is done.
  const open = work.filter(
    ({ layer, file, directory }) => directory !== undefined || file.hash !== hexOf(layer),
  )
  if (open.length === 0) return staged
  await using namespace = await openUnpackNamespace()
  let unpackedBytes = 0
  await inParallel(
    open,
    parallelLayers,
    options.signal,
    async ({ layer, index, file, directory }, signal) => {
      const run = (target?: UnpackTarget) =>
        runLayer(
          {
            index,
            offset: file.offset,
            size: file.size,
            diffHash: hexOf(layer),
            maxEntries: limits.layerEntries,
            maxRemembered: limits.rememberedEntries,
            maxBytes: limits.unpackedBytes - unpackedBytes,
            compressionRatio: limits.compressionRatio,
          },
          { spool, cache, timeoutMs: limits.unpackMs, signal, ...(target ? { target } : {}) },
        )
      const message = `layer ${index + 1} of ${image.layers.length}, ${mebibytes(file.size)}`
      options.onProgress?.({ step: directory === undefined ? 'verify' : 'unpack', message })
      const result =
        directory === undefined
          ? await run()
          : await stageLayer(directory, (tree) => run({ directory: tree, namespace: namespace.fd }))
      unpackedBytes += result.fileBytes
      if (unpackedBytes > limits.unpackedBytes) {
        throw new FaasError('IMAGE_TOO_LARGE', `the layers have more than ${limits.unpackedBytes} bytes`, {
          hint: 'make the image smaller',
        })
      }
    },
  )
  return staged
}
