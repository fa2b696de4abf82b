/**
 * What the API answers, as zod schemas: each gives the TypeScript type and its part of the OpenAPI document.
 * JSON keys are snake_case, times ISO 8601 in UTC, memory in bytes, CPU time in milliseconds.
 */
import { z } from 'zod'

/** One deploy's answer. `ip` is canonical text (RFC 5952); `cmd` is the argv that an instance runs. */
export const deployed = z.object({
  name: z.string(),
  ip: z.string(),
  cmd: z.array(z.string()),
  contract: z.enum(['fd', 'listen']),
  version: z.int().positive(),
  warnings: z.array(z.string()).optional(),
})
export type Deployed = z.infer<typeof deployed>

/**
 * `idle`: listening, no instance; `running`: at least one instance; `paused`: its instances are frozen; `starting`: being put in place after a start;
 * `failing`: the last instance could not be started, the log says why.
 */
export const functionState = z.enum(['idle', 'running', 'paused', 'starting', 'failing'])

/** A function in `GET /api/list`. `rootfs` is images/NAME/rootfs; `image` the digest of the image's configuration. */
export const functionSummary = z.object({
  ip: z.string(),
  rootfs: z.string(),
  cmd: z.array(z.string()),
  contract: z.enum(['fd', 'listen']),
  image: z.string(),
  created: z.string(),
  instances: z.int().min(0),
  state: functionState,
})
export type FunctionSummary = z.infer<typeof functionSummary>

/**
 * What a version was deployed with. `max_instances` is the limit of instances at one time; a connection waits
 * `queue_ms` for one, then is reset. `health` is the path that must answer with 2xx before a version takes over.
 */
export const functionSettings = z.object({
  /** Names only: values may be secrets. */
  env: z.array(z.string()),
  limits: z.object({
    memory_bytes: z.int(),
    cpu_millis: z.int(),
    pids: z.int(),
    tmp_bytes: z.int(),
  }),
  timeouts: z.object({
    connect_ms: z.int(),
    total_ms: z.int(),
    queue_ms: z.int(),
    pause_ms: z.int(),
    idle_ms: z.int(),
  }),
  ports: z.array(z.object({ port: z.int(), target: z.int() })),
  max_instances: z.int(),
  min_instances: z.int(),
  /** `fd`: how many instances wait ahead of connections. */
  standby: z.union([z.int(), z.literal('demand')]),
  reuse: z.boolean(),
  writable: z.boolean(),
  health: z.string().nullable(),
})
export type FunctionSettings = z.infer<typeof functionSettings>

export const functionDetail = functionSummary.extend({
  name: z.string(),
  url: z.string(),
  version: z.int().positive(),
  updated: z.string(),
  working_dir: z.string(),
  user: z.string(),
  ...functionSettings.shape,
})
export type FunctionDetail = z.infer<typeof functionDetail>

/** A version that can be rolled back to, or the current one. `rollback_of` is the version that it repeats. */
export const functionVersion = functionSettings.extend({
  version: z.int().positive(),
  current: z.boolean(),
  deployed: z.string(),
  rollback_of: z.int().positive().nullable(),
  image: z.string(),
  cmd: z.array(z.string()),
  contract: z.enum(['fd', 'listen']),
})
export type FunctionVersion = z.infer<typeof functionVersion>

export const functionAddress = z.object({ name: z.string(), ip: z.string() })
/** What was removed; `warnings` say what could not be undone yet and is tried again by itself. */
export const functionRemoved = functionAddress.extend({ warnings: z.array(z.string()).optional() })
export type FunctionRemoved = z.infer<typeof functionRemoved>
export type FunctionAddress = z.infer<typeof functionAddress>

/** Counters since faasd started; `memory_bytes` and `cpu_ms` are of the instances that live now. */
export const functionStats = z.object({
  name: z.string(),
  instances: z.int().min(0),
  /** Of these, the ones of the `fd` contract that wait for a connection. */
  standbys: z.int().min(0),
  /** How connections reach the image: straight from the kernel, or through a relay where the image needs one. */
  path: z.enum(['kernel', 'relay']),
  connections: z.object({
    accepted: z.int().min(0),
    passed: z.int().min(0),
    refused: z.int().min(0),
    failed: z.int().min(0),
  }),
  memory_bytes: z.int().min(0).nullable(),
  cpu_ms: z.int().min(0).nullable(),
})
export type FunctionStats = z.infer<typeof functionStats>

/** One line that a handler printed (`stdout`, `stderr`), or that the platform says about it (`platform`). */
export const logLine = z.object({
  time: z.string(),
  function: z.string(),
  instance: z.string(),
  stream: z.enum(['stdout', 'stderr', 'platform']),
  text: z.string(),
})
export type LogLine = z.infer<typeof logLine>

export const progress = z.object({ step: z.string(), message: z.string() })
export type Progress = z.infer<typeof progress>

export const peerCreated = z.object({ ipv6: z.string(), server_public_key: z.string(), endpoint: z.string() })
export type PeerCreated = z.infer<typeof peerCreated>

/** `status` in words: `connected` after a handshake within the last three minutes, else `idle` or `never`. */
export const peerEntry = z.object({
  name: z.string(),
  ipv6: z.string(),
  created: z.string(),
  status: z.string(),
})
export type PeerEntry = z.infer<typeof peerEntry>

/** `warning` is about the endpoint, where it was not stated and had to be found out. */
export const peerInvited = z.object({ code: z.string(), expires: z.string(), warning: z.string().optional() })
export type PeerInvited = z.infer<typeof peerInvited>

/** `ok`, or `degraded` (functions answer, something needs care), or `failing` (functions do not answer). */
export const healthStatus = z.enum(['ok', 'degraded', 'failing'])
export const health = z.object({
  status: healthStatus,
  checks: z.record(z.string(), z.object({ status: healthStatus, message: z.string() })),
})
export type Health = z.infer<typeof health>

export const versionAnswer = z.object({ version: z.string() })

/** Every error: a stable code (docs/errors.md), what happened, and what to do next where that is known. */
export const errorEnvelope = z.object({
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }),
})
export type ErrorEnvelope = z.infer<typeof errorEnvelope>
