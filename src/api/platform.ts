/**
 * What the daemon hands to the routes: everything the API can do, and nothing of HTTP.
 * Every method throws FaasError; names are checked types already. src/daemon implements it.
 */
import type { FunctionName, PeerName } from '../values/names.ts'
import type {
  Deployed,
  FunctionAddress,
  FunctionDetail,
  FunctionRemoved,
  FunctionStats,
  FunctionSummary,
  FunctionVersion,
  Health,
  LogLine,
  PeerCreated,
  PeerEntry,
  PeerInvited,
  Progress,
} from './answers.ts'

/** What a deploy may state; what it leaves out keeps the platform's default, also on a redeploy. */
export interface DeployOptions {
  /** Which image of the archive, by its name and tag, where there are several. */
  readonly pick?: string
  readonly limits?: {
    readonly memoryBytes?: number
    /** Thousandths of one core. */
    readonly cpuMillis?: number
    readonly pids?: number
    /** Size of the function's /tmp. */
    readonly tmpBytes?: number
  }
  /** Added to the image's own variables, and winning over them. */
  readonly env?: Readonly<Record<string, string>>
  readonly timeouts?: {
    /** From the start of an instance until it has connected to /control.sock. */
    readonly connectMs?: number
    /** How long an instance may take for a connection. */
    readonly totalMs?: number
    /** How long a connection waits while all instances are busy, before it is reset. */
    readonly queueMs?: number
    /** `listen`: how long without a connection until instances are frozen. */
    readonly pauseMs?: number
    /** And then until they are ended; `fd`: how long without a connection until those are ended that wait for one. */
    readonly idleMs?: number
  }
  /** How the image gets its requests; found out where it is left out. */
  readonly contract?: 'fd' | 'listen'
  /** Ports of the address, and the ports that the image listens on. */
  readonly ports?: readonly { readonly port: number; readonly target: number }[]
  /** How many instances may run at one time, and how many are kept when nobody calls. */
  readonly maxInstances?: number
  readonly minInstances?: number
  /** `fd`: how many wait ahead of connections, always; by demand where it is left out. */
  readonly standby?: number
  /** `fd`: instances may ask for the next connection when they have answered. */
  readonly reuse?: boolean
  /** An ephemeral layer over the image that can be written. */
  readonly writable?: boolean
  /** A path that a new version must answer with 2xx before it takes over. */
  readonly health?: string
}

export interface Platform {
  readonly version: string

  /**
   * Deploys an image (a `docker save` stream) as `name`; resolves when the name does.
   * `signal` aborts when the caller has gone: before the commit everything is undone, after it nothing is.
   * Throws before the first read of `body` what can be known before it (FUNCTION_BUSY, NOT_READY).
   */
  deploy(
    name: FunctionName,
    body: AsyncIterable<Uint8Array>,
    options: DeployOptions,
    signal: AbortSignal,
    onProgress: (progress: Progress) => void,
  ): Promise<Deployed>

  list(): Promise<ReadonlyMap<FunctionName, FunctionSummary>>
  /**
   * Deploys an earlier version again, the one before the current where none is named; `signal` as in a deploy. Throws
   * FUNCTION_UNKNOWN, as do those below; VERSION_UNKNOWN, OPTION_INVALID.
   */
  rollback(name: FunctionName, version: string | undefined, signal: AbortSignal): Promise<Deployed>
  /** The current version first. */
  versions(name: FunctionName): Promise<readonly FunctionVersion[]>
  describe(name: FunctionName): Promise<FunctionDetail>
  address(name: FunctionName): Promise<FunctionAddress>
  /** Answers the address that was freed. */
  remove(name: FunctionName): Promise<FunctionRemoved>
  /** The last `tail` lines, then, with `follow`, each new one until `signal` aborts. Throws before the first line. */
  logs(
    name: FunctionName,
    options: { readonly follow: boolean; readonly tail: number },
    signal: AbortSignal,
  ): Promise<AsyncIterable<LogLine>>
  stats(name: FunctionName): Promise<FunctionStats>

  readonly vpn: {
    /** Registers a device's public key. Throws PEER_EXISTS, PEER_KEY_INVALID, PEER_KEY_TAKEN. */
    create(name: PeerName, publicKey: string): Promise<PeerCreated>
    list(): Promise<readonly PeerEntry[]>
    /** Throws PEER_UNKNOWN. */
    remove(name: PeerName): Promise<void>
    /** A code that lets one device join once, for an hour. Throws PEER_EXISTS, ENDPOINT_UNKNOWN. */
    invite(name: PeerName): Promise<PeerInvited>
  }

  health(): Promise<Health>
  /** Prometheus text exposition format. */
  metrics(): Promise<string>
}
