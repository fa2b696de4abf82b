/** The limit of descriptors that this process and what it starts may hold. */
import * as libc from './libc.ts'

const RLIMIT_NOFILE = 7

/**
 * Raises the limit, soft and hard, to `wanted` or leaves it higher. False where the hard one may not be raised, as in
 * a container with fewer capabilities: then it stays what it was.
 */
export function raiseOpenFiles(wanted: number): boolean {
  const limits = Buffer.alloc(16)
  libc.must(libc.getrlimit(RLIMIT_NOFILE, limits), 'getrlimit')
  const hard = limits.readBigUInt64LE(8)
  const value = hard > BigInt(wanted) ? hard : BigInt(wanted)
  limits.writeBigUInt64LE(value, 0)
  limits.writeBigUInt64LE(value, 8)
  return libc.setrlimit(RLIMIT_NOFILE, limits) === 0
}
