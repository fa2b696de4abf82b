/**
 * A function: what the registry keeps of it, and what serving it needs. The image's own configuration is kept by the
 * image store under the image's digest; the record names it.
 */
import type { Healthcheck, Image, ImageConfig } from '../images/image.ts'
import { functionPort } from '../net/addresses.ts'
import type { ContainerUser, Limits, Scratch } from '../runtime/container.ts'
import { type Digest, hexOf } from '../values/digest.ts'
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
  /** A new version must answer `GET` of this path with 2xx before it takes over. */
  readonly health?: string
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
export const defaultMaxInstances = 16

/** What was deployed under a name at one time. It never changes; a rollback makes a new one of the same content. */
export interface FunctionVersion {
  /** 1 for the first; it rises with each deploy and each rollback for as long as the function exists. */
  readonly version: number
  /** Digest of the image's configuration. */
  readonly image: Digest
  readonly contract: ContractName
  readonly ports: readonly PortMapping[]
  readonly options: FunctionOptions
  /** ISO 8601, UTC. */
  readonly deployed: string
  /** The version that this one repeats. */
  readonly rollbackOf?: number
}

const healthPathForm = /^\/[!-"$-~]*$/
const maxHealthPathBytes = 1024

/** Checks the path of a health check: a slash, then visible ASCII without `#`. Throws OPTION_INVALID. */
export function parseHealthPath(text: string): string {
  if (text.length <= maxHealthPathBytes && healthPathForm.test(text)) return text
  throw new FaasError('OPTION_INVALID', `health: expected a path, got ${JSON.stringify(text.slice(0, 40))}`, {
    hint: 'a path begins with / and has no space and no #, as in /healthz?full=1',
  })
}

/** One function in `registry.json`, the truth of which everything else is derived: its current version, and more. */
export interface FunctionRecord extends FunctionVersion {
  readonly address: Ipv6
  /** ISO 8601, UTC: of the first deploy. */
  readonly created: string
  /** The versions before the current one that are kept for a rollback, oldest first. */
  readonly previous: readonly FunctionVersion[]
}

/** How many versions of a function are kept, the current one among them. Their images stay on the disk. */
export const keptVersions = 5

/** All versions of a function that are kept, the current one first. */
export const versionsOf = ({
  address: _address,
  created: _created,
  previous,
  ...current
}: FunctionRecord): readonly FunctionVersion[] => [current, ...previous.toReversed()]

/** A version's number and the beginning of its image's digest: `3-0123456789ab`. */
export type VersionId = string
export const versionIdOf = ({ version, image }: Pick<FunctionVersion, 'version' | 'image'>): VersionId =>
  `${version}-${hexOf(image).slice(0, 12)}`

/** One version of a function with all that starting an instance of it takes. */
export interface ServedFunction {
  readonly name: FunctionName
  /** Tells this version from all others that the name has had, in earlier lives too. */
  readonly versionId: VersionId
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
  readonly scratch: readonly Scratch[]
  /** The directory of the platform's own files; undefined where the image has no place for them. */
  readonly etc: string | undefined
  /** How the image says that it works. */
  readonly healthcheck: Healthcheck | undefined
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
 * Where an image listens when the deploy does not say: the port that `PORT` names in the deploy's variables or else
 * in the image's own, because a server that reads it binds it; else the TCP port that the image exposes, 8080 or 80
 * where it is one of several and else the lowest; else 8080. It is called at port 80 of the address.
 */
export function portsOf(
  { exposedPorts, env }: Pick<ImageConfig, 'exposedPorts' | 'env'>,
  { env: stated }: Pick<FunctionOptions, 'env'>,
): readonly PortMapping[] {
  const named = portIn(stated) ?? portIn(env)
  if (named !== undefined) return [{ port: functionPort, target: named }]
  const exposed = exposedPorts.filter(({ protocol }) => protocol === 'tcp').map(({ port }) => port)
  const target = [defaultTarget, functionPort].find((port) => exposed.includes(port)) ?? Math.min(...exposed)
  return [{ port: functionPort, target: exposed.length === 0 ? defaultTarget : target }]
}

/** The port that the last `PORT=` of some variables says; undefined where there is none, or it is no port. */
function portIn(env: readonly string[]): number | undefined {
  const text = env.findLast((variable) => variable.startsWith('PORT='))?.slice('PORT='.length) ?? ''
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0
  return port >= 1 && port <= 65535 ? port : undefined
}

/**
 * `PORT` with the first port that the image is called at, overridden by the image's variables, these by the deploy's,
 * and above all the platform's own.
 */
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
