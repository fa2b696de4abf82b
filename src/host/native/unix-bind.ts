/**
 * Binds a UNIX socket of a container for it: the name is made in the container's own root, by a look-up that no link
 * leads out of (openat2(2), RESOLVE_IN_ROOT), and belongs to the caller. It is made with the caller's rights too: a
 * file system of the container's user namespace takes no file of a user that it does not know, root of the host for
 * one (EOVERFLOW).
 */
import { closeSync, constants, lchownSync, openSync, readFileSync, statSync } from 'node:fs'
import { posix } from 'node:path'
import * as libc from './libc.ts'
import { bindCopy } from './socket-facts.ts'

const AF_UNIX = 1
const AT_O_PATH_DIRECTORY = 0o10000000 | 0o200000 | 0o2000000
const RESOLVE_NO_MAGICLINKS_IN_ROOT = 0x02 | 0x10
const SYS_openat2 = 437
const openHowBytes = 24
const maxNameBytes = 80
/** A bit of `CapEff`, capabilities(7). */
const CAP_DAC_OVERRIDE = 1 << 1
const EINVAL = 22
const ENAMETOOLONG = 36

/** `fd` is a duplicate of the socket, `address` a copy of what the caller passed. 0, or the negative errno. */
export function bindUnixInside(fd: number, pid: number, address: Buffer): number {
  const bytes = address.subarray(2)
  // Without a name, or with one of the network namespace's: no file.
  if (bytes.length === 0 || bytes[0] === 0) return bindCopy(fd, address)
  const end = bytes.indexOf(0)
  const path = bytes.toString('latin1', 0, end < 0 ? bytes.length : end)
  const base = posix.basename(path)
  if (path.endsWith('/') || base === '' || base === '.' || base === '..') return -EINVAL
  if (base.length > maxNameBytes) return -ENAMETOOLONG
  const start = openSync(
    `/proc/${pid}/${path.startsWith('/') ? 'root' : 'cwd'}`,
    constants.O_RDONLY | constants.O_DIRECTORY,
  )
  try {
    const directory = openInRoot(start, posix.dirname(path))
    if (directory < 0) return directory
    try {
      return bindNamed(fd, pid, `/proc/self/fd/${directory}/${base}`)
    } finally {
      closeSync(directory)
    }
  } finally {
    closeSync(start)
  }
}

function openInRoot(start: number, path: string): number {
  const how = Buffer.alloc(openHowBytes)
  how.writeBigUInt64LE(BigInt(AT_O_PATH_DIRECTORY), 0)
  how.writeBigUInt64LE(BigInt(RESOLVE_NO_MAGICLINKS_IN_ROOT), 16)
  const name = Buffer.from(`${path}\0`, 'latin1')
  const call = libc.syscall(
    SYS_openat2,
    start,
    Number(libc.addressOf(name)),
    Number(libc.addressOf(how)),
    openHowBytes,
  )
  return Number(call) < 0 ? -libc.errnoNumber() : Number(call)
}

/** Made with the caller's umask and rights, and given to the caller, as if it had been made by it. */
function bindNamed(fd: number, pid: number, path: string): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const id = (key: string): number =>
    Number(new RegExp(`^${key}:(?:\\s+\\d+){3}\\s+(\\d+)$`, 'm').exec(status)?.[1])
  const umask = Number.parseInt(/^Umask:\s+([0-7]+)$/m.exec(status)?.[1] ?? '22', 8)
  const capabilities = Number.parseInt(/^CapEff:\s+[0-9a-f]{8}([0-9a-f]{8})$/m.exec(status)?.[1] ?? '0', 16)
  const [uid, gid] = [id('Uid'), id('Gid')]
  // Whom no permission stops makes it as the directory's owner.
  const maker = (capabilities & CAP_DAC_OVERRIDE) === 0 ? uid : statSync(posix.dirname(path)).uid
  const name = Buffer.from(`\0\0${path}\0`, 'latin1')
  name.writeUInt16LE(AF_UNIX, 0)
  const before = process.umask(umask)
  let result: number
  try {
    libc.setfsgid(gid)
    libc.setfsuid(maker)
    result = bindCopy(fd, name)
  } finally {
    libc.setfsuid(0)
    libc.setfsgid(0)
    process.umask(before)
  }
  if (result === 0) lchownSync(path, uid, gid)
  return result
}
