/**
 * Docker's `manifest.json` (moby, "Docker Image Specification v1.2", "Combined Image JSON + Filesystem Changeset
 * Format"): a list of images, each with the names of its config and of its layers in the archive.
 */
import { z } from 'zod'
import { FaasError } from '../values/errors.ts'
import type { Archive, ArchiveFile } from './archive.ts'
import { parseDocument } from './document.ts'
import { pickImage } from './pick.ts'
import type { SelectedImage, Selection } from './selection.ts'

const maxImages = 1000

const manifestShape = z
  .array(
    z.object({
      Config: z.string(),
      RepoTags: z.array(z.string()).nullish(),
      Layers: z.array(z.string()).nullish(),
    }),
  )
  .min(1)
  .max(maxImages)

/** `<hex>.json` before Docker 25, `blobs/sha256/<hex>` since. Other builders use names that state nothing. */
const statedHash = /^(?:(?:.*\/)?([0-9a-f]{64})\.json|blobs\/sha256\/([0-9a-f]{64}))$/

export async function selectFromDocker(
  archive: Archive,
  manifest: ArchiveFile,
  { pick, limits }: Selection,
): Promise<SelectedImage> {
  if (manifest.size > limits.documentBytes) {
    throw new FaasError('ARCHIVE_INVALID', `manifest.json has ${manifest.size} bytes`)
  }
  const images = parseDocument(
    await archive.read(manifest),
    manifestShape,
    'manifest.json',
    'ARCHIVE_INVALID',
  )
  const image = pickImage(
    images.map((each) => ({ ...each, names: each.RepoTags ?? [] })),
    pick,
  )
  const stated = statedHash.exec(image.Config)
  return {
    config: archive.get(image.Config, 'the config that manifest.json names'),
    statedConfigHash: stated?.[1] ?? stated?.[2],
    layers: (image.Layers ?? []).map((name, index) =>
      archive.get(name, `layer ${index} that manifest.json names`),
    ),
  }
}
