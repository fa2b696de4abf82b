/**
 * HEALTHCHECK in an image's config (Docker's "Image JSON specification", `Healthcheck`): OCI has no such key, and what
 * is said there is kept by `docker save`. Durations are nanoseconds there and milliseconds here.
 */
import { z } from 'zod'
import type { Healthcheck } from './image.ts'

const clean = z.string().refine((text) => !text.includes('\0'), 'contains a zero byte')
const amount = z.number().min(0).nullish()

export const healthcheckShape = z
  .object({
    Test: z.array(clean).nullish(),
    Interval: amount,
    Timeout: amount,
    StartPeriod: amount,
    Retries: amount,
  })
  .nullish()

/** What Docker takes where the image says nothing, or 0. */
const defaults = { intervalMs: 30_000, timeoutMs: 30_000, retries: 3 } as const
const longestMs = 24 * 60 * 60 * 1000
const maxRetries = 100
const nanosecondsPerMs = 1_000_000

/** Undefined for `NONE`, for nothing, and for a kind of test that is not known. */
export function parseHealthcheck(shape: z.infer<typeof healthcheckShape>): Healthcheck | undefined {
  const argv = argvOf(shape?.Test ?? [])
  if (!shape || argv.length === 0) return undefined
  return {
    argv,
    intervalMs: toMs(shape.Interval) || defaults.intervalMs,
    timeoutMs: toMs(shape.Timeout) || defaults.timeoutMs,
    startPeriodMs: toMs(shape.StartPeriod),
    retries: Math.min(Math.floor(shape.Retries ?? 0), maxRetries) || defaults.retries,
  }
}

function argvOf([kind, ...words]: readonly string[]): readonly string[] {
  if (kind === 'CMD') return words
  const [command = ''] = words
  return kind === 'CMD-SHELL' && command !== '' ? ['/bin/sh', '-c', command] : []
}

const toMs = (nanoseconds: number | null | undefined): number =>
  Math.min(Math.ceil((nanoseconds ?? 0) / nanosecondsPerMs), longestMs)
