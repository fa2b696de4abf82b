/**
 * A function: what the registry keeps of it, and what serving it needs. The image's own configuration is kept by the
 * image store under the image's digest; the record names it.
 */
import type { Image, ImageConfig } from '../images/image.ts'
import type { MountPoint } from '../images/mount-points.ts'
import { functionPort } from '../net/addresses.ts'
import type { ContainerUser, Limits } from '../runtime/container.ts'
import type { Digest } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import type { Ipv6 } from '../values/ipv6.ts'
import type { FunctionName } from '../values/names.ts'

/** How a function gets its requests. */
export const contractNames = ['fd', 'listen'] as const
export type ContractName = (typeof contractNames)[number]

/** A port of the function's address, and the port that the image binds in its container. */
export interface PortMapping {
  readonly port: number
  readonly target: number
}

export interface Timeouts {
  /** From the start of an instance until it has connected to its control socket. */
  readonly connectMs: number
  /** How long an instance may take for a connection: `fd`, from the hand-over until it ends or asks for the next. */
  readonly totalMs: number
  /** How long a connection waits while all instances are busy, before it is reset. */
  readonly queueMs: number
  /** `listen`: how long without a connection until instances are frozen. */
  readonly pauseMs: number
  /**
   * `listen`: how long frozen until instances are ended; `fd`: how long without a connection until those are ended
   * that wait for one. See {@link idleMsOf}.
   */
  readonly idleMs?: number
}

/** What can be set at deploy; a redeploy that leaves something out gets the default again. */
export interface FunctionOptions {
  readonly limits: Limits
  readonly timeouts: Timeouts
  /** Instances at one time, at most; and `listen`: how many are kept, frozen when idle. */
  readonly maxInstances: number
  readonly minInstances: number
  /** `fd`: how many instances wait ahead of connections, always; by demand, and none when idle, where left out. */
  readonly standby?: number
  /** `fd`: instances may ask for the next connection when they have answered. */
  readonly reuse?: boolean
  /** An ephemeral upper layer over the image, in the function's memory. */
  readonly writable: boolean
  /** `NAME=value`, winning over the image's. */
  readonly env: readonly string[]
}

export const defaultTimeouts: Timeouts = {
  connectMs: 5_000,
  totalMs: 30_000,
  queueMs: 10_000,
  pauseMs: 2_000,
}
const defaultIdleMs = { fd: 5_000, listen: 60_000 } as const
export const idleMsOf = ({ contract, options }: Pick<FunctionVersion, 'contract' | 'options'>): number =>
  options.timeouts.idleMs ?? defaultIdleMs[contract]
export const defaultMaxInstances = { fd: 16, listen: 4 } as const

/** One function in `registry.json`: the truth of which everything else is derived. */
export interface FunctionRecord {
  readonly address: Ipv6
  readonly ports: readonly PortMapping[]
  readonly contract: ContractName
  /** Digest of the image's configuration. */
  readonly image: Digest
  /** ISO 8601, UTC: of the first deploy and of the last. */
  readonly created: string
  readonly updated: string
  readonly options: FunctionOptions
}

/** One version of a function with all that starting an instance of it takes. */
export interface ServedFunction {
  readonly name: FunctionName
  readonly address: Ipv6
  readonly ports: readonly PortMapping[]
  readonly contract: ContractName
  readonly image: Digest
  readonly rootfs: string
  readonly argv: readonly string[]
  readonly env: readonly string[]
  readonly cwd: string
  readonly user: ContainerUser
  /** Directories that can be written: the image's volumes, and what servers expect. Each is a tmpfs. */
  readonly scratch: readonly MountPoint[]
  /** Asks an instance to end, by number. */
  readonly stopSignal: number
  readonly options: FunctionOptions
}

/**
 * What an image runs: ENTRYPOINT and CMD together (OCI image specification, config.md). Throws
 * IMAGE_CONFIG_INVALID when there is neither.
 */
export function commandOf(config: ImageConfig): readonly string[] {
  const argv = [...config.entrypoint, ...config.cmd]
  if (argv.length > 0) return argv
  throw new FaasError(
    'IMAGE_CONFIG_INVALID',
    'the image has neither ENTRYPOINT nor CMD: there is nothing to run',
    {
      hint: 'add a CMD to its Dockerfile',
    },
  )
}

/** Where an image listens that says nothing of it, as `$PORT` tells it. */
const defaultTarget = 8080

/**
 * Port 80 of the address, to the TCP port that the image exposes: 8080 or 80 where it is one of several, else the
 * lowest; 8080 where it exposes none.
 */
export function portsOf({ exposedPorts }: Pick<ImageConfig, 'exposedPorts'>): readonly PortMapping[] {
  const exposed = exposedPorts.filter(({ protocol }) => protocol === 'tcp').map(({ port }) => port)
  const target = [defaultTarget, functionPort].find((port) => exposed.includes(port)) ?? Math.min(...exposed)
  return [{ port: functionPort, target: exposed.length === 0 ? defaultTarget : target }]
}

/** `PORT`, overridden by the image's variables, these by the deploy's, and above all the platform's own. */
export function environmentOf(
  image: Image,
  options: FunctionOptions,
  platform: { readonly name: FunctionName; readonly address: Ipv6; readonly ports: readonly PortMapping[] },
): readonly string[] {
  const own = [`FAAS_NAME=${platform.name}`, `FAAS_ADDRESS=${platform.address}`]
  const port = `PORT=${platform.ports[0]?.target ?? defaultTarget}`
  const values = new Map<string, string>()
  for (const variable of [port, ...image.config.env, ...options.env, ...own]) {
    values.set(variable.slice(0, variable.indexOf('=')), variable)
  }
  return [...values.values()]
}
