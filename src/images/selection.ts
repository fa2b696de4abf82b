/** What is asked of an archive, and what is found in it. */
import type { ArchiveFile } from './archive.ts'
import type { ImageLimits } from './limits.ts'

export interface SelectedImage {
  readonly config: ArchiveFile
  /** The digest that something in the archive states for the config, in hex; undefined where nothing does. */
  readonly statedConfigHash: string | undefined
  /** Bottom layer first, compressed or not. */
  readonly layers: readonly ArchiveFile[]
}

export interface Selection {
  /** Which image, if there are several: a name with or without its tag. */
  readonly pick: string | undefined
  /** In Go's words. */
  readonly architecture: string
  readonly limits: ImageLimits
}
