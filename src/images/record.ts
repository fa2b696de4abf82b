/**
 * What the store remembers of an image: `images/<hex of its id>.json`, written once and never changed.
 * Failures: NOT_FOUND, STATE_TOO_NEW, REGISTRY_CORRUPT.
 */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { fsyncDirectory, readTextIfExists, writeFileAtomic } from '../host/files.ts'
import { type Digest, digestOfHex, hexOf, parseDigest } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import type { Image } from './image.ts'

const recordVersion = 1

const digest = z.string().transform((text) => parseDigest(text))
const texts = z.array(z.string())
const recordShape = z.object({
  version: z.literal(recordVersion),
  id: digest,
  layers: z.array(digest),
  config: z.object({
    entrypoint: texts,
    cmd: texts,
    env: texts,
    workingDir: z.string(),
    user: z.string(),
    exposedPorts: z.array(z.object({ port: z.number(), protocol: z.enum(['tcp', 'udp']) })),
    volumes: texts,
    stopSignal: z.string(),
    healthcheck: z
      .object({
        argv: texts,
        intervalMs: z.number(),
        timeoutMs: z.number(),
        startPeriodMs: z.number(),
        retries: z.number(),
      })
      .optional(),
    architecture: z.string(),
    os: z.string(),
  }),
})

export interface ImageRecords {
  read(id: Digest): Promise<Image>
  /** Durable when the promise resolves. */
  write(image: Image): Promise<void>
  list(): Promise<readonly Digest[]>
  remove(id: Digest): Promise<void>
}

export function createImageRecords(directory: string): ImageRecords {
  const pathOf = (id: Digest): string => join(directory, `${hexOf(id)}.json`)
  return {
    async read(id) {
      const text = await readTextIfExists(pathOf(id))
      if (text === undefined) {
        throw new FaasError('NOT_FOUND', `the image ${id} is not in the store`, { hint: 'deploy it again' })
      }
      return parseRecord(text, id)
    },
    write: ({ id, layers, config }) =>
      writeFileAtomic(
        pathOf(id),
        `${JSON.stringify({ version: recordVersion, id, layers, config }, null, 2)}\n`,
        {
          mode: 0o600,
        },
      ),
    async list() {
      const names = await readdir(directory)
      return names.flatMap((name) =>
        /^[0-9a-f]{64}\.json$/.test(name) ? [digestOfHex(name.slice(0, 64))] : [],
      )
    },
    async remove(id) {
      await rm(pathOf(id), { force: true })
      await fsyncDirectory(directory)
    },
  }
}

function parseRecord(text: string, id: Digest): Image {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw corrupt(id, error)
  }
  const version = (value as { version?: unknown } | null)?.version
  if (typeof version === 'number' && version > recordVersion) {
    throw new FaasError('STATE_TOO_NEW', `the record of the image ${id} has version ${version}`, {
      hint: 'it was written by a newer faasd: upgrade',
    })
  }
  const result = recordShape.safeParse(value)
  if (!result.success || result.data.id !== id) throw corrupt(id, result.error)
  const { layers, config } = result.data
  const { healthcheck, ...others } = config
  return { id, layers, config: healthcheck ? { ...others, healthcheck } : others }
}

const corrupt = (id: Digest, cause: unknown): FaasError =>
  new FaasError('REGISTRY_CORRUPT', `the record of the image ${id} is damaged`, {
    hint: 'deploy the image again',
    cause,
  })
