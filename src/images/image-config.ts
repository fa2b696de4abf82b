/**
 * Reads an image's config (OCI image specification, config.md; Docker's form is the same with more keys).
 * Failures: IMAGE_CONFIG_INVALID, IMAGE_PLATFORM_UNSUPPORTED, IMAGE_LAYER_INVALID for too many layers.
 */
import { posix } from 'node:path'
import { z } from 'zod'
import { type Digest, parseDigest } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import { parseDocument } from './document.ts'
import { healthcheckShape, parseHealthcheck } from './healthcheck.ts'
import type { ExposedPort, ImageConfig } from './image.ts'

/** The kernel takes no more for arguments and environment together in the smallest configuration. */
const maxArgumentBytes = 1024 * 1024
const defaultStopSignal = 'SIGTERM'
const supportedOs = 'linux'

const clean = z.string().refine((text) => !text.includes('\0'), 'contains a zero byte')
/** A list, or one string, which is a shell command (Dockerfile reference, "Shell form"). */
const command = z
  .union([z.array(clean), clean.transform((text) => (text === '' ? [] : ['/bin/sh', '-c', text]))])
  .nullish()
  .transform((value) => value ?? [])
const keys = z
  .record(clean, z.unknown())
  .nullish()
  .transform((value) => Object.keys(value ?? {}))
const optionalText = clean.nullish().transform((value) => value ?? '')

const runtimeShape = z.object({
  Entrypoint: command,
  Cmd: command,
  Env: z
    .array(clean)
    .nullish()
    .transform((value) => value ?? []),
  WorkingDir: optionalText,
  User: optionalText,
  ExposedPorts: keys,
  Volumes: keys,
  StopSignal: optionalText,
  Healthcheck: healthcheckShape,
})

const configShape = z.object({
  architecture: optionalText,
  os: optionalText,
  config: runtimeShape.nullish(),
  rootfs: z.object({ type: z.string().nullish(), diff_ids: z.array(z.string()).nullish() }),
})

export interface ParsedConfig {
  readonly layers: readonly Digest[]
  readonly config: ImageConfig
}

/** This machine's architecture in Go's words, as images name it. */
export const goArchitecture = (nodeArch: string): string =>
  ({ x64: 'amd64', ia32: '386' })[nodeArch] ?? nodeArch

export interface ConfigBounds {
  readonly architecture: string
  readonly maxLayers: number
}

export function parseImageConfig(bytes: Uint8Array, { architecture, maxLayers }: ConfigBounds): ParsedConfig {
  const document = parseDocument(bytes, configShape, 'the image config', 'IMAGE_CONFIG_INVALID')
  const runtime = document.config ?? runtimeShape.parse({})
  const layers = (document.rootfs.diff_ids ?? []).map((text, index) =>
    parseDigest(text, `diff ID ${index} in the image config`),
  )
  if (layers.length === 0) {
    throw new FaasError('IMAGE_CONFIG_INVALID', 'the image has no layers, so there is nothing to run')
  }
  if (layers.length > maxLayers) {
    throw new FaasError(
      'IMAGE_LAYER_INVALID',
      `the image has ${layers.length} layers, at most ${maxLayers} work`,
      {
        hint: 'build it with fewer steps, or squash it',
      },
    )
  }
  const os = document.os || supportedOs
  const actual = document.architecture || architecture
  if (os !== supportedOs || actual !== architecture) {
    throw new FaasError(
      'IMAGE_PLATFORM_UNSUPPORTED',
      `the image is for ${os}/${actual}, this is linux/${architecture}`,
      {
        hint: `build it with --platform linux/${architecture}`,
      },
    )
  }
  const healthcheck = parseHealthcheck(runtime.Healthcheck)
  checkArguments([...(healthcheck?.argv ?? [])])
  checkArguments([...runtime.Entrypoint, ...runtime.Cmd, ...runtime.Env])
  return {
    layers,
    config: {
      entrypoint: runtime.Entrypoint,
      cmd: runtime.Cmd,
      // A name without a value sets nothing; Docker keeps such entries only to unset a variable on its command line.
      env: runtime.Env.filter((entry) => entry.indexOf('=') > 0),
      workingDir: parseWorkingDir(runtime.WorkingDir),
      user: runtime.User,
      exposedPorts: runtime.ExposedPorts.flatMap(parseExposedPort),
      volumes: runtime.Volumes.filter((path) => path.startsWith('/')).map((path) => posix.normalize(path)),
      stopSignal: parseStopSignal(runtime.StopSignal),
      ...(healthcheck ? { healthcheck } : {}),
      architecture: actual,
      os,
    },
  }
}

function checkArguments(texts: readonly string[]): void {
  const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text) + 1, 0)
  if (bytes > maxArgumentBytes) {
    throw new FaasError(
      'IMAGE_CONFIG_INVALID',
      `command and environment have ${bytes} bytes, at most 1 MiB work`,
    )
  }
}

/** Everything below /proc is refused: it leads through links that the kernel makes (CVE-2024-21626). */
function parseWorkingDir(text: string): string {
  const path = posix
    .normalize(`/${text}`)
    .replace(/^\/+/, '/')
    .replace(/(?<=.)\/$/, '')
  if (path === '/proc' || path.startsWith('/proc/') || /^\/+proc(\/|$)/.test(text)) {
    throw new FaasError(
      'IMAGE_CONFIG_INVALID',
      `the working directory ${JSON.stringify(text.slice(0, 80))} is in /proc`,
    )
  }
  return path
}

/** `80`, `80/tcp`, `53/udp`; ranges and other protocols say nothing that faasd uses and are left out. */
function parseExposedPort(text: string): ExposedPort[] {
  const parts = /^([0-9]{1,5})(?:\/(tcp|udp))?$/.exec(text)
  const port = Number(parts?.[1] ?? 0)
  if (port < 1 || port > 65535) return []
  return [{ port, protocol: parts?.[2] === 'udp' ? 'udp' : 'tcp' }]
}

function parseStopSignal(text: string): string {
  if (text === '') return defaultStopSignal
  if (/^([0-9]{1,2}|(SIG)?[A-Z][A-Z0-9+-]{1,12})$/.test(text)) return text
  throw new FaasError('IMAGE_CONFIG_INVALID', `the stop signal ${JSON.stringify(text.slice(0, 40))} is none`)
}
