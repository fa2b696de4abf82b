/**
 * The API declared once: method, path, input and answer of each call. The routes validate by it, the client takes its
 * types from it, and the OpenAPI document is rendered from it.
 */
import { z } from 'zod'
import type { ErrorCode } from '../values/errors.ts'
import * as answers from './answers.ts'
import { deployQuery } from './deploy-options.ts'

export interface Operation {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** With `:name` where a name stands. */
  readonly path: string
  readonly tag: 'functions' | 'vpn' | 'service'
  readonly summary: string
  readonly description?: string
  readonly query?: z.ZodObject
  /** A JSON body. */
  readonly body?: z.ZodObject
  /** Without a body the call means the same as with `{}`. */
  readonly bodyOptional?: true
  /** The body is a `docker save` stream of any content type; the name comes in the header X-Image-Name. */
  readonly archive?: true
  readonly answer: z.ZodType
  /** Content type of an answer that is no JSON. */
  readonly text?: string
  /** The failures that are this call's own; HOST_REFUSED and its like can meet every call. */
  readonly errors: readonly ErrorCode[]
}

const flag = z
  .enum(['true', 'false', '1', '0', ''])
  .transform((text) => text !== 'false' && text !== '0')
  .optional()

const maxTail = 100_000

/** Checked where it is looked up (src/functions/rollback.ts). */
const versionReference = z.string().min(1).max(80)

export const operations = {
  deploy: {
    method: 'POST',
    path: '/api/new',
    tag: 'functions',
    summary: 'Deploy an image as a function',
    description:
      'Answers when the name resolves. With `Accept: application/x-ndjson` the answer is one JSON object a line: ' +
      '`{"step","message"}` for each step, and last `{"result":…}` or `{"error":…}`. ' +
      'The name is checked before the body is read. While one deploy of a name is under way, another of the same ' +
      'name is refused with FUNCTION_BUSY, also before its body is read.',
    query: deployQuery,
    archive: true,
    answer: answers.deployed,
    errors: [
      'NAME_INVALID',
      'NAME_RESERVED',
      'OPTION_INVALID',
      'FUNCTION_BUSY',
      'FUNCTION_NOT_PROVEN',
      'ARCHIVE_INVALID',
      'ARCHIVE_TRUNCATED',
      'IMAGE_AMBIGUOUS',
      'IMAGE_CONFIG_INVALID',
      'IMAGE_DIGEST_MISMATCH',
      'IMAGE_LAYER_INVALID',
      'IMAGE_ROOTFS_REFUSED',
      'IMAGE_PLATFORM_UNSUPPORTED',
      'IMAGE_TOO_LARGE',
      'ADDRESS_POOL_EMPTY',
      'DISK_FULL',
      'FIREWALL_NOT_IN_PLACE',
      'DNS_TIMEOUT',
    ],
  },
  list: {
    method: 'GET',
    path: '/api/list',
    tag: 'functions',
    summary: 'All functions, by name',
    answer: z.record(z.string(), answers.functionSummary),
    errors: [],
  },
  address: {
    method: 'GET',
    path: '/api/ip/:name',
    tag: 'functions',
    summary: "A function's address",
    answer: answers.functionAddress,
    errors: ['NAME_INVALID', 'FUNCTION_UNKNOWN'],
  },
  describe: {
    method: 'GET',
    path: '/api/functions/:name',
    tag: 'functions',
    summary: 'Everything about a function',
    answer: answers.functionDetail,
    errors: ['NAME_INVALID', 'FUNCTION_UNKNOWN'],
  },
  versions: {
    method: 'GET',
    path: '/api/functions/:name/versions',
    tag: 'functions',
    summary: 'The versions of a function that are kept, the current one first',
    description:
      'The last five, the current one among them. Numbers rise with each deploy and each rollback for as long as the ' +
      'function exists.',
    answer: z.array(answers.functionVersion),
    errors: ['NAME_INVALID', 'FUNCTION_UNKNOWN'],
  },
  rollback: {
    method: 'POST',
    path: '/api/functions/:name/rollback',
    tag: 'functions',
    summary: 'Deploy an earlier version again',
    description:
      'As a deploy, without an upload: the version gets a new number, is proven while the current one serves, and then ' +
      'takes over with its image, contract, ports and options as they were. Without a version it is the one before the ' +
      'current. Answers as a deploy does.',
    query: z.strictObject({
      version: versionReference.optional().describe('As in the body, instead of it'),
    }),
    body: z.strictObject({
      version: z
        .union([z.int().positive().transform(String), versionReference])
        .optional()
        .describe("The version's number, or at least 6 of the first hex digits of its image's digest"),
    }),
    bodyOptional: true,
    answer: answers.deployed,
    errors: [
      'NAME_INVALID',
      'OPTION_INVALID',
      'REQUEST_INVALID',
      'FUNCTION_UNKNOWN',
      'VERSION_UNKNOWN',
      'FUNCTION_BUSY',
      'FUNCTION_NOT_PROVEN',
      'DISK_FULL',
      'FIREWALL_NOT_IN_PLACE',
      'DNS_TIMEOUT',
    ],
  },
  remove: {
    method: 'DELETE',
    path: '/api/functions/:name',
    tag: 'functions',
    summary: 'Remove a function',
    description: 'Answers what was removed. Its address rests before another function gets it.',
    answer: answers.functionRemoved,
    errors: ['NAME_INVALID', 'FUNCTION_UNKNOWN', 'FUNCTION_BUSY'],
  },
  logs: {
    method: 'GET',
    path: '/api/functions/:name/logs',
    tag: 'functions',
    summary: 'What a function printed',
    description: 'Lines of text, or with `Accept: application/x-ndjson` one JSON object a line.',
    query: z.strictObject({
      follow: flag.describe('Stay and send each new line'),
      tail: z
        .string()
        .regex(/^\d{1,6}$/, 'expected a whole number')
        .transform(Number)
        .pipe(z.int().max(maxTail))
        .optional()
        .describe('How many of the last lines to begin with; 100 when left out'),
    }),
    answer: answers.logLine,
    text: 'text/plain',
    errors: ['NAME_INVALID', 'OPTION_INVALID', 'FUNCTION_UNKNOWN'],
  },
  stats: {
    method: 'GET',
    path: '/api/functions/:name/stats',
    tag: 'functions',
    summary: "A function's counters",
    answer: answers.functionStats,
    errors: ['NAME_INVALID', 'FUNCTION_UNKNOWN'],
  },
  vpnCreate: {
    method: 'POST',
    path: '/api/vpn/create',
    tag: 'vpn',
    summary: "Register a device's public key",
    body: z.strictObject({ name: z.string(), public_key: z.string().max(256) }),
    answer: answers.peerCreated,
    errors: [
      'REQUEST_INVALID',
      'NAME_INVALID',
      'PEER_EXISTS',
      'PEER_KEY_INVALID',
      'PEER_KEY_TAKEN',
      'ENDPOINT_UNKNOWN',
      'ADDRESS_POOL_EMPTY',
    ],
  },
  vpnInvite: {
    method: 'POST',
    path: '/api/vpn/invite',
    tag: 'vpn',
    summary: 'Make a code with which one device joins once',
    body: z.strictObject({ name: z.string() }),
    answer: answers.peerInvited,
    errors: ['REQUEST_INVALID', 'NAME_INVALID', 'PEER_EXISTS', 'ENDPOINT_UNKNOWN', 'ADDRESS_POOL_EMPTY'],
  },
  vpnList: {
    method: 'GET',
    path: '/api/vpn/list',
    tag: 'vpn',
    summary: 'All devices',
    answer: z.array(answers.peerEntry),
    errors: [],
  },
  vpnRemove: {
    method: 'DELETE',
    path: '/api/vpn/remove/:name',
    tag: 'vpn',
    summary: 'Remove a device',
    answer: z.object({ name: z.string() }),
    errors: ['NAME_INVALID', 'PEER_UNKNOWN'],
  },
  health: {
    method: 'GET',
    path: '/api/health',
    tag: 'service',
    summary: 'How the platform is',
    description: '200 for `ok` and `degraded`, 503 for `failing`.',
    answer: answers.health,
    errors: [],
  },
  version: {
    method: 'GET',
    path: '/api/version',
    tag: 'service',
    summary: 'Version of the server',
    answer: answers.versionAnswer,
    errors: [],
  },
  metrics: {
    method: 'GET',
    path: '/metrics',
    tag: 'service',
    summary: 'Metrics in the Prometheus text format',
    answer: z.string(),
    text: 'text/plain; version=0.0.4; charset=utf-8',
    errors: [],
  },
  openapi: {
    method: 'GET',
    path: '/openapi.json',
    tag: 'service',
    summary: 'This document',
    answer: z.record(z.string(), z.unknown()),
    errors: [],
  },
} as const satisfies Record<string, Operation>

export type Operations = typeof operations
export type AnswerOf<O extends Operation> = z.output<O['answer']>
export type QueryOf<O extends Operation> = O extends { query: infer Q extends z.ZodObject }
  ? z.output<Q>
  : undefined
export type BodyOf<O extends Operation> = O extends { body: infer B extends z.ZodObject }
  ? z.output<B>
  : undefined

/** The methods that a path answers; empty for a path that is none of ours. A GET implies HEAD but for `logs`. */
export function allowedMethods(path: string): readonly string[] {
  const matching = Object.values(operations as Record<string, Operation>).filter((operation) =>
    pathPattern(operation.path).test(path),
  )
  return matching.map((operation) => operation.method)
}

const pathPattern = (path: string): RegExp =>
  new RegExp(`^${path.replaceAll('.', '\\.').replace(':name', '[^/]+')}$`)
