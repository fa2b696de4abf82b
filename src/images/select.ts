/**
 * Finds one image in an archive: the config's bytes and the files of its layers. Three forms are read:
 * Docker's `manifest.json` (before version 25 with a directory a layer, since then with blobs), and the OCI image
 * layout (`index.json`, nested and multi-arch indexes included).
 */

import { FaasError } from '../values/errors.ts'
import type { Archive } from './archive.ts'
import { selectFromDocker } from './docker-manifest.ts'
import { selectFromLayout } from './oci-layout.ts'
import type { SelectedImage, Selection } from './selection.ts'

/** Throws ARCHIVE_INVALID, IMAGE_AMBIGUOUS (naming what there is), IMAGE_PLATFORM_UNSUPPORTED, IMAGE_DIGEST_MISMATCH. */
export async function selectImage(archive: Archive, selection: Selection): Promise<SelectedImage> {
  const manifest = archive.find('manifest.json')
  if (manifest) return selectFromDocker(archive, manifest, selection)
  const index = archive.find('index.json')
  if (index) return selectFromLayout(archive, index, selection)
  throw new FaasError('ARCHIVE_INVALID', 'the archive has neither manifest.json nor index.json', {
    hint: 'send the output of docker save, not of docker export',
  })
}
