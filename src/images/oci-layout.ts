/**
 * The OCI image layout (image-layout.md): `index.json` leads by digests to manifests or to further indexes, whose
 * manifests may be for several platforms. Blobs lie in `blobs/sha256/` and were hashed while they arrived.
 */
import { z } from 'zod'
import { type Digest, hexOf, parseDigest } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import type { Archive, ArchiveFile } from './archive.ts'
import { parseDocument } from './document.ts'
import { pickImage } from './pick.ts'
import type { SelectedImage, Selection } from './selection.ts'

const maxDescriptors = 1000
const maxIndexDepth = 4
const indexTypes: ReadonlySet<string> = new Set([
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
])
/** Names that tools give an image in `index.json`, the fullest first. */
const nameAnnotations = ['io.containerd.image.name', 'org.opencontainers.image.ref.name']

const descriptorShape = z.object({
  mediaType: z.string().nullish(),
  digest: z.string(),
  size: z.number().int().nonnegative(),
  annotations: z.record(z.string(), z.string()).nullish(),
  platform: z.object({ architecture: z.string(), os: z.string() }).nullish(),
})
const indexShape = z.object({ manifests: z.array(descriptorShape).max(maxDescriptors) })
const manifestShape = z.object({
  config: descriptorShape,
  layers: z.array(descriptorShape).max(maxDescriptors),
})

type Descriptor = z.output<typeof descriptorShape>

/** One image of the archive: a name or two, and a manifest for each platform that it is built for. */
interface Candidate {
  readonly names: readonly string[]
  readonly manifests: readonly Descriptor[]
}

export async function selectFromLayout(
  archive: Archive,
  index: ArchiveFile,
  selection: Selection,
): Promise<SelectedImage> {
  const { manifests } = await readDocument(archive, index, indexShape, 'index.json', selection)
  const candidates: Candidate[] = []
  for (const descriptor of manifests) {
    candidates.push({
      names: nameAnnotations.flatMap((key) => descriptor.annotations?.[key] ?? []),
      manifests: await platformManifests(archive, descriptor, selection, 0),
    })
  }
  const image = pickImage(forThisPlatform(candidates, selection.architecture), selection.pick)
  const [descriptor] = image.manifests
  if (descriptor === undefined) throw new FaasError('ARCHIVE_INVALID', 'index.json names no image')
  const blob = blobOf(archive, descriptor, 'the image manifest')
  const manifest = await readDocument(archive, blob, manifestShape, 'the image manifest', selection)
  return {
    config: blobOf(archive, manifest.config, 'the config'),
    statedConfigHash: hexOf(digestOf(manifest.config)),
    layers: manifest.layers.map((layer, at) => blobOf(archive, layer, `layer ${at}`)),
  }
}

/** The manifests that a descriptor leads to, those of attestations left out. */
async function platformManifests(
  archive: Archive,
  descriptor: Descriptor,
  selection: Selection,
  depth: number,
): Promise<Descriptor[]> {
  if (descriptor.annotations?.['vnd.docker.reference.type'] || descriptor.platform?.os === 'unknown')
    return []
  if (!indexTypes.has(descriptor.mediaType ?? '')) return [descriptor]
  if (depth >= maxIndexDepth)
    throw new FaasError('ARCHIVE_INVALID', 'the indexes of the archive nest too deep')
  const blob = blobOf(archive, descriptor, 'an image index')
  const { manifests } = await readDocument(archive, blob, indexShape, 'an image index', selection)
  const found: Descriptor[] = []
  for (const each of manifests) {
    found.push(...(await platformManifests(archive, each, selection, depth + 1)))
    if (found.length > maxDescriptors)
      throw new FaasError('ARCHIVE_INVALID', 'the archive names too many images')
  }
  return found
}

/** The candidates with what fits this platform; a manifest that states no platform may fit. */
function forThisPlatform(candidates: readonly Candidate[], architecture: string): Candidate[] {
  const all = candidates.filter((candidate) => candidate.manifests.length > 0)
  if (all.length === 0) throw new FaasError('ARCHIVE_INVALID', 'index.json names no image')
  const fitting = all
    .map((candidate) => ({
      ...candidate,
      manifests: candidate.manifests.filter(
        ({ platform }) => !platform || (platform.os === 'linux' && platform.architecture === architecture),
      ),
    }))
    .filter((candidate) => candidate.manifests.length > 0)
  if (fitting.length > 0) return underAllNames(fitting)
  const platforms = all.flatMap((candidate) =>
    candidate.manifests.map(({ platform }) => `${platform?.os}/${platform?.architecture}`),
  )
  throw new FaasError(
    'IMAGE_PLATFORM_UNSUPPORTED',
    `the archive has images for ${[...new Set(platforms)].slice(0, 20).join(', ')}, this is linux/${architecture}`,
    { hint: `build it with --platform linux/${architecture}` },
  )
}

/** An image that is listed once for each of its names is one image. */
function underAllNames(candidates: readonly Candidate[]): Candidate[] {
  const merged = new Map<string, Candidate>()
  for (const candidate of candidates) {
    const key = candidate.manifests.map(({ digest }) => digest).join()
    const names = [...(merged.get(key)?.names ?? []), ...candidate.names]
    merged.set(key, { ...candidate, names })
  }
  return [...merged.values()]
}

const digestOf = (descriptor: Descriptor): Digest =>
  parseDigest(descriptor.digest, 'the digest of a descriptor')

function blobOf(archive: Archive, descriptor: Descriptor, what: string): ArchiveFile {
  const digest = digestOf(descriptor)
  const file = archive.get(`blobs/sha256/${hexOf(digest)}`, what)
  // Links make it possible for a blob's name to lead to other bytes than those that were checked under it.
  if (file.hash !== hexOf(digest)) {
    throw new FaasError(
      'IMAGE_DIGEST_MISMATCH',
      `${what} is sha256:${file.hash}, its descriptor says ${digest}`,
    )
  }
  if (file.size !== descriptor.size) {
    throw new FaasError(
      'IMAGE_DIGEST_MISMATCH',
      `${what} has ${file.size} bytes, its descriptor says ${descriptor.size}`,
    )
  }
  return file
}

async function readDocument<Shape extends z.ZodType>(
  archive: Archive,
  file: ArchiveFile,
  shape: Shape,
  what: string,
  { limits }: Selection,
): Promise<z.output<Shape>> {
  if (file.size > limits.documentBytes)
    throw new FaasError('ARCHIVE_INVALID', `${what} has ${file.size} bytes`)
  return parseDocument(await archive.read(file), shape, what, 'ARCHIVE_INVALID')
}
