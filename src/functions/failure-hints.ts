/**
 * What would help an image that failed, read from what it printed: a read-only root and missing rights have words of
 * their own in every language's error. Pure.
 */
import type { ServedFunction } from './function.ts'

type Tried = Pick<ServedFunction, 'contract' | 'user' | 'options'>

/** errno's own words, then the names and numbers under which Node, Java, Go and Python print it. */
const readOnly = /read-only (?:file|)\s?system|\bEROFS\b|\berrno[ :=]*30\b|ReadOnlyFileSystemException/i
const denied = /permission denied|\bEACCES\b|\berrno[ :=]*13\b|AccessDeniedException/i
const notPermitted = /operation not permitted|\bEPERM\b|\berrno[ :=]*1\b/i
const full = /no space left on device|\bENOSPC\b|\berrno[ :=]*28\b/i

/** A sentence that names the option that helps; undefined where the lines, oldest first, tell of nothing known. */
export function hintFromOutput(lines: readonly string[], fn: Tried): string | undefined {
  // The last complaint is the one that it died of.
  for (const line of lines.toReversed()) {
    const hint = hintFromLine(line, fn)
    if (hint !== undefined) return hint
  }
  return undefined
}

function hintFromLine(line: string, { contract, user, options }: Tried): string | undefined {
  if (readOnly.test(line)) {
    return options.writable
      ? 'what it writes to is not a part of the image (/proc, /sys, /dev and the files of the platform are read-only)'
      : 'the files of an image are read-only: deploy it with --writable, or name the directory in a VOLUME'
  }
  if (full.test(line)) {
    return options.writable
      ? 'its files may take half of its memory: deploy it with a larger --memory'
      : 'its directories in memory are full: deploy it with a larger --tmp'
  }
  if (notPermitted.test(line)) {
    if (user.uid !== 0) {
      return 'it runs as the USER of the image, without a capability: let that user own its files, or drop USER and let the entrypoint change to it'
    }
    return contract === 'fd'
      ? 'not even root has a capability on the fd contract: set USER in the image to the owner of its files'
      : 'root may change owners, modes and users in there, and nothing of the system: set USER in the image, or configure it to do without'
  }
  if (denied.test(line)) {
    return user.uid === 0 && contract === 'fd'
      ? 'root has no capability on the fd contract: set USER in the image to the owner of its files'
      : 'its user has no right to that file: give it to the USER of the image (COPY --chown), or set another USER'
  }
  return undefined
}
