/** Content digests as the OCI image specification writes them (descriptor.md, "Digests"). Only sha256 is spoken. */
import { FaasError } from './errors.ts'

declare const checked: unique symbol

/** `sha256:` and 64 lower-case hex digits; made only by {@link parseDigest} and {@link digestOfHex}. */
export type Digest = string & { readonly [checked]: 'digest' }

const digestForm = /^sha256:[0-9a-f]{64}$/

/** Checks a digest. Throws ARCHIVE_INVALID, naming `what` it should have been. */
export function parseDigest(text: unknown, what = 'a digest'): Digest {
  if (typeof text === 'string' && digestForm.test(text)) return text as Digest
  const shown = typeof text === 'string' ? JSON.stringify(text.slice(0, 80)) : typeof text
  throw new FaasError('ARCHIVE_INVALID', `${what} must be "sha256:" and 64 hex digits, got ${shown}`)
}

/** The digest whose hex part is `hex`. Throws ARCHIVE_INVALID unless that is 64 hex digits. */
export const digestOfHex = (hex: string): Digest => parseDigest(`sha256:${hex}`)

/** The 64 hex digits of a digest, as used in file names. */
export const hexOf = (digest: Digest): string => digest.slice('sha256:'.length)
