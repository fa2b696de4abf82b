/** JSON from an archive: bounded in bytes and depth before it is parsed, of a declared shape after. */
import type { z } from 'zod'
import { type ErrorCode, FaasError } from '../values/errors.ts'

/** Docker's and OCI's documents nest fewer than ten levels. */
const maxDepth = 64
const shownIssues = 3

/**
 * Parses `bytes`. `what` names the document in messages; `code` is the error for one that is broken.
 * Unknown keys are dropped, so that none of them (`__proto__` for one) travels any further.
 */
export function parseDocument<Shape extends z.ZodType>(
  bytes: Uint8Array,
  shape: Shape,
  what: string,
  code: ErrorCode,
): z.output<Shape> {
  if (nestsDeeperThan(bytes, maxDepth)) {
    throw new FaasError(code, `${what} nests deeper than ${maxDepth} levels`)
  }
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw new FaasError(code, `${what} is not JSON`, { cause: error })
  }
  const result = shape.safeParse(value)
  if (result.success) return result.data
  const issues = result.error.issues
    .slice(0, shownIssues)
    .map((issue) => `${issue.path.map(String).join('.') || 'the whole'}: ${issue.message}`)
  throw new FaasError(code, `${what} has not the expected form (${issues.join('; ').slice(0, 500)})`)
}

const quote = 0x22
const backslash = 0x5c
const openers: ReadonlySet<number> = new Set([0x7b, 0x5b])
const closers: ReadonlySet<number> = new Set([0x7d, 0x5d])

function nestsDeeperThan(bytes: Uint8Array, limit: number): boolean {
  let depth = 0
  let quoted = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0
    if (quoted) {
      if (byte === backslash) at++
      else if (byte === quote) quoted = false
    } else if (byte === quote) quoted = true
    else if (openers.has(byte)) {
      depth++
      if (depth > limit) return true
    } else if (closers.has(byte)) depth--
  }
  return false
}
