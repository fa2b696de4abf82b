/** Bounds on what one image may cost. Past any of them the image is refused, with IMAGE_TOO_LARGE unless said. */
export interface ImageLimits {
  /** Bytes of the archive as it is sent, and once more as it is after decompression. Default 16 GiB. */
  readonly archiveBytes: number
  /** Entries of the archive (not of its layers). Default 20,000. Past it ARCHIVE_INVALID. */
  readonly archiveEntries: number
  /** Bytes of one JSON document in the archive. Default 8 MiB. Past it ARCHIVE_INVALID or IMAGE_CONFIG_INVALID. */
  readonly documentBytes: number
  /** Default 128. Past it IMAGE_LAYER_INVALID. */
  readonly layers: number
  /** Bytes of all layers of an image together, uncompressed. Default 16 GiB. */
  readonly unpackedBytes: number
  /** Entries of one layer. Default 2,000,000. */
  readonly layerEntries: number
  /** Symbolic links of one layer, and its whiteouts likewise: these are remembered. Default 300,000. */
  readonly rememberedEntries: number
  /** Uncompressed bytes for one compressed byte, beyond the first 256 MiB. Default 500. */
  readonly compressionRatio: number
  /** Wall-clock time for the unpacking of one layer. Default 30 minutes. Past it COMMAND_TIMEOUT. */
  readonly unpackMs: number
}

const gibibyte = 1024 ** 3

export const defaultLimits: ImageLimits = {
  archiveBytes: 16 * gibibyte,
  archiveEntries: 20_000,
  documentBytes: 8 * 1024 ** 2,
  layers: 128,
  unpackedBytes: 16 * gibibyte,
  layerEntries: 2_000_000,
  rememberedEntries: 300_000,
  compressionRatio: 500,
  unpackMs: 30 * 60_000,
}
