/**
 * Writes `docker save` archives without Docker: the form before Docker 25 (a directory a layer), the form since
 * (an OCI layout with `manifest.json`) and the plain OCI layout. Same input, same bytes.
 *
 * Layers are given as uncompressed tar files; digests are computed here. Made for tests and the demo: what is
 * written is well-formed, bad archives are the business of the tests that need them.
 */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdtemp, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip, createZstdCompress } from 'node:zlib'
import { type TarEntry, writeTar } from './tar.ts'

export interface ImageConfigInput {
  readonly Entrypoint?: readonly string[]
  readonly Cmd?: readonly string[]
  readonly Env?: readonly string[]
  readonly WorkingDir?: string
  readonly User?: string
  readonly ExposedPorts?: Readonly<Record<string, object>>
  readonly Volumes?: Readonly<Record<string, object>>
  readonly StopSignal?: string
}

export interface ImageInput {
  /** Such as `fibonacci:latest`; none makes an untagged image. */
  readonly tags: readonly string[]
  /** Uncompressed tar files, bottom layer first. */
  readonly layers: readonly string[]
  readonly config: ImageConfigInput
  /** In the words of OCI (`amd64`, `arm64`); this machine's by default. */
  readonly architecture?: string
}

export interface ArchiveOptions {
  /** `docker`: since Docker 25; `docker-legacy`: before; `oci`: a plain OCI layout. */
  readonly form?: 'docker' | 'docker-legacy' | 'oci'
  /** How layers lie in the archive; Docker saves them uncompressed, so anything else only makes sense for `oci`. */
  readonly compression?: 'none' | 'gzip' | 'zstd'
  /** `docker-legacy` only: a layer that was written before is a symlink to the first one. */
  readonly linkRepeatedLayers?: boolean
  /** `oci` only: all images become one multi-arch index under the first image's first tag. */
  readonly multiArch?: boolean
}

interface Blob {
  readonly hex: string
  readonly size: number
  /** The bytes, or the file that holds them. */
  readonly content: Buffer | { readonly file: string }
}

const mediaTypes = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
} as const

const epoch = '1970-01-01T00:00:00Z'
export const thisArchitecture = process.arch === 'x64' ? 'amd64' : process.arch

/** Writes the archive at `output`, whole or not at all. */
export async function writeImageArchive(
  output: string,
  images: readonly ImageInput[],
  options: ArchiveOptions = {},
): Promise<void> {
  const scratch = await mkdtemp(join(dirname(output), '.archive-'))
  try {
    const prepared: PreparedImage[] = []
    for (const image of images) prepared.push(await prepare(image, options.compression ?? 'none', scratch))
    const form = options.form ?? 'docker'
    const entries =
      form === 'docker-legacy' ? legacyEntries(prepared, options) : ociEntries(prepared, form, options)
    const aside = join(scratch, 'archive.tar')
    await writeTar(aside, entries)
    await rename(aside, output)
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

interface PreparedImage {
  readonly tags: readonly string[]
  readonly config: Blob
  readonly layers: readonly Blob[]
  readonly architecture: string
  readonly layerType: string
}

async function prepare(
  image: ImageInput,
  compression: 'none' | 'gzip' | 'zstd',
  scratch: string,
): Promise<PreparedImage> {
  const diffIds: string[] = []
  const layers: Blob[] = []
  for (const [index, file] of image.layers.entries()) {
    const plain = await fileBlob(file)
    diffIds.push(`sha256:${plain.hex}`)
    if (compression === 'none') {
      layers.push(plain)
      continue
    }
    const packed = join(scratch, `${plain.hex}-${index}`)
    const transform = compression === 'gzip' ? createGzip({ level: 6 }) : createZstdCompress()
    await pipeline(createReadStream(file), transform, createWriteStream(packed))
    layers.push(await fileBlob(packed))
  }
  const architecture = image.architecture ?? thisArchitecture
  const config = jsonBlob({
    architecture,
    config: image.config,
    created: epoch,
    history: image.layers.map(() => ({ created: epoch, created_by: 'faasd test images' })),
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: diffIds },
  })
  return { tags: image.tags, config, layers, architecture, layerType: mediaTypes[compression] }
}

function ociEntries(
  images: readonly PreparedImage[],
  form: 'docker' | 'oci',
  options: ArchiveOptions,
): TarEntry[] {
  const blobs = new Map<string, Blob>()
  const manifests = images.map((image) => {
    for (const blob of [image.config, ...image.layers]) blobs.set(blob.hex, blob)
    const manifest = jsonBlob({
      schemaVersion: 2,
      mediaType: mediaTypes.manifest,
      config: descriptor(mediaTypes.config, image.config),
      layers: image.layers.map((layer) => descriptor(image.layerType, layer)),
    })
    blobs.set(manifest.hex, manifest)
    return { image, manifest }
  })
  const annotated = (blob: Blob, tag: string | undefined, mediaType: string) => ({
    ...descriptor(mediaType, blob),
    ...(tag === undefined
      ? {}
      : {
          annotations: {
            'io.containerd.image.name': `docker.io/library/${tag}`,
            'org.opencontainers.image.ref.name': tag.slice(tag.lastIndexOf(':') + 1),
          },
        }),
  })
  let index: object
  if (options.multiArch === true) {
    const inner = jsonBlob({
      schemaVersion: 2,
      mediaType: mediaTypes.index,
      manifests: manifests.map(({ image, manifest }) => ({
        ...descriptor(mediaTypes.manifest, manifest),
        platform: { architecture: image.architecture, os: 'linux' },
      })),
    })
    blobs.set(inner.hex, inner)
    index = { manifests: [annotated(inner, images[0]?.tags[0], mediaTypes.index)] }
  } else {
    index = {
      manifests: manifests.flatMap(({ image, manifest }) =>
        (image.tags.length === 0 ? [undefined] : image.tags).map((tag) =>
          annotated(manifest, tag, mediaTypes.manifest),
        ),
      ),
    }
  }
  const entries: TarEntry[] = [directory('blobs'), directory('blobs/sha256')]
  for (const blob of [...blobs.values()].sort((a, b) => (a.hex < b.hex ? -1 : 1))) {
    entries.push(blobEntry(`blobs/sha256/${blob.hex}`, blob))
  }
  entries.push(jsonEntry('index.json', { schemaVersion: 2, mediaType: mediaTypes.index, ...index }))
  if (form === 'docker') {
    entries.push(
      jsonEntry(
        'manifest.json',
        images.map((image) => ({
          Config: `blobs/sha256/${image.config.hex}`,
          RepoTags: image.tags,
          Layers: image.layers.map((layer) => `blobs/sha256/${layer.hex}`),
        })),
      ),
    )
  }
  entries.push(jsonEntry('oci-layout', { imageLayoutVersion: '1.0.0' }))
  return entries
}

function legacyEntries(images: readonly PreparedImage[], options: ArchiveOptions): TarEntry[] {
  const entries: TarEntry[] = []
  const firstDirectoryOf = new Map<string, string>()
  const manifest: object[] = []
  for (const image of images) {
    const paths: string[] = []
    let parent: string | undefined
    for (const layer of image.layers) {
      // Docker names the directory by a chain over the layers below, so that one layer can stand twice.
      const id = createHash('sha256')
        .update(`${parent ?? ''} ${layer.hex} ${image.config.hex}`)
        .digest('hex')
      const path = `${id}/layer.tar`
      entries.push(directory(id), { path: `${id}/VERSION`, content: '1.0' })
      entries.push(jsonEntry(`${id}/json`, { id, ...(parent === undefined ? {} : { parent }), os: 'linux' }))
      const first = firstDirectoryOf.get(layer.hex)
      if (first !== undefined && options.linkRepeatedLayers === true) {
        entries.push({ path, type: 'symlink', target: `../${first}/layer.tar` })
      } else {
        firstDirectoryOf.set(layer.hex, id)
        entries.push(blobEntry(path, layer))
      }
      paths.push(path)
      parent = id
    }
    const configPath = `${image.config.hex}.json`
    entries.push(blobEntry(configPath, image.config))
    manifest.push({ Config: configPath, RepoTags: image.tags, Layers: paths })
  }
  entries.push(jsonEntry('manifest.json', manifest))
  return entries
}

const directory = (path: string): TarEntry => ({ path, type: 'directory' })
const jsonEntry = (path: string, value: unknown): TarEntry => ({ path, content: JSON.stringify(value) })
const blobEntry = (path: string, blob: Blob): TarEntry =>
  'file' in blob.content ? { path, source: blob.content.file } : { path, content: blob.content }
const descriptor = (mediaType: string, blob: Blob) => ({
  mediaType,
  digest: `sha256:${blob.hex}`,
  size: blob.size,
})

function jsonBlob(value: unknown): Blob {
  const content = Buffer.from(JSON.stringify(value))
  return { hex: createHash('sha256').update(content).digest('hex'), size: content.length, content }
}

async function fileBlob(file: string): Promise<Blob> {
  const { size } = await stat(file)
  const hash = createHash('sha256')
  if (size < 1 << 20) hash.update(await readFile(file))
  else await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash)
  return { hex: hash.digest('hex'), size, content: { file } }
}
