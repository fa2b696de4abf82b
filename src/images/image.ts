/** What an image is to the rest of faasd: names for its parts and what it asks for when it runs. */
import type { Digest } from '../values/digest.ts'

export interface Image {
  /** The digest of the config, which names the layers and so everything. */
  readonly id: Digest
  /** Diff IDs (digests of the uncompressed layers), bottom layer first. */
  readonly layers: readonly Digest[]
  readonly config: ImageConfig
}

/** OCI image config, "Properties", with every default filled in. No string contains a zero byte. */
export interface ImageConfig {
  readonly entrypoint: readonly string[]
  readonly cmd: readonly string[]
  /** `NAME=value` each. */
  readonly env: readonly string[]
  /** Absolute and normalised. */
  readonly workingDir: string
  /** `user`, `uid`, `user:group`, `uid:gid` and so on; empty is root. */
  readonly user: string
  readonly exposedPorts: readonly ExposedPort[]
  /** Absolute paths. */
  readonly volumes: readonly string[]
  /** `SIGTERM` unless the image says otherwise. */
  readonly stopSignal: string
  /** How the image says that it works; absent where it does not say. */
  readonly healthcheck?: Healthcheck
  /** In Go's words: `amd64`, `arm64`. */
  readonly architecture: string
  readonly os: string
}

/** HEALTHCHECK, with Docker's defaults filled in: it works when the command exits with 0 in time. */
export interface Healthcheck {
  readonly argv: readonly string[]
  readonly intervalMs: number
  readonly timeoutMs: number
  /** How long after the start a failure does not count. */
  readonly startPeriodMs: number
  /** Failures in a row, from which on it does not work. */
  readonly retries: number
}

export interface ExposedPort {
  readonly port: number
  readonly protocol: 'tcp' | 'udp'
}
