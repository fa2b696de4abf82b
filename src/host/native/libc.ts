/**
 * The C library's functions that Node lacks, through koffi. Declarations only: what they mean for us stands in
 * the neighbouring files, and nothing outside of `src/host/native/` loads a native function.
 * Layouts and numbers are those of 64-bit little-endian Linux (x86-64 and arm64 agree on all that is used here).
 */
import koffi from 'koffi'
import { FaasError } from '../../values/errors.ts'

const libc = koffi.load('libc.so.6')

export const accept4 = libc.func('int accept4(int, void *, void *, int)')
export const bind = libc.func('int bind(int, void *, uint)')
export const close = libc.func('int close(int)')
export const connect = libc.func('int connect(int, void *, uint)')
export const epoll_create1 = libc.func('int epoll_create1(int)')
export const epoll_ctl = libc.func('int epoll_ctl(int, int, int, void *)')
export const epoll_wait = libc.func('int epoll_wait(int, void *, int, int)')
export const eventfd = libc.func('int eventfd(uint, int)')
export const fcntl = libc.func('int fcntl(int, int, long)')
export const flock = libc.func('int flock(int, int)')
export const getrlimit = libc.func('int getrlimit(int, void *)')
export const getsockname = libc.func('int getsockname(int, void *, void *)')
export const getsockopt = libc.func('int getsockopt(int, int, int, void *, void *)')
export const ioctl = libc.func('int ioctl(int, ulong, void *)')
export const listen = libc.func('int listen(int, int)')
export const mkfifo = libc.func('int mkfifo(const char *, uint)')
export const mount = libc.func('int mount(const char *, const char *, const char *, ulong, const char *)')
export const prctl = libc.func('int prctl(int, ulong, ulong, ulong, ulong)')
export const read = libc.func('long read(int, void *, size_t)')
export const recvmsg = libc.func('long recvmsg(int, void *, int)')
export const recv = libc.func('long recv(int, void *, size_t, int)')
export const send = libc.func('long send(int, void *, size_t, int)')
export const sendmsg = libc.func('long sendmsg(int, void *, int)')
export const setsockopt = libc.func('int setsockopt(int, int, int, void *, uint)')
/** Both change the calling thread alone, and what follows is checked with these ids (setfsuid(2)). */
export const setfsgid = libc.func('int setfsgid(uint)')
export const setfsuid = libc.func('int setfsuid(uint)')
export const setns = libc.func('int setns(int, int)')
export const setrlimit = libc.func('int setrlimit(int, void *)')
export const socket = libc.func('int socket(int, int, int)')
export const syscall = libc.func('long syscall(long, long, long, long, long)')
export const unshare = libc.func('int unshare(int)')
export const umount2 = libc.func('int umount2(const char *, int)')
export const waitid = libc.func('int waitid(int, uint, void *, int)')
export const write = libc.func('long write(int, void *, size_t)')

const names = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]))

/** The name of the last failure on this thread, as `EAGAIN`. Read it before any other call. */
export const lastErrno = (): string => names.get(koffi.errno()) ?? `errno ${koffi.errno()}`

/** The last failure's number, to be handed on as it is. */
export const errnoNumber = (): number => koffi.errno()

/** A result that must not be negative; throws SYSCALL_FAILED with the call's name and errno. */
export function must(result: number, call: string): number {
  if (result >= 0) return result
  throw new FaasError('SYSCALL_FAILED', `${call}: ${lastErrno()}`)
}

/** The address of a buffer, to be put into a structure; the buffer must stay referenced during the call. */
export const addressOf = (buffer: Uint8Array): bigint => koffi.address(buffer)

/** Runs a blocking function on libuv's pool; its result arrives as the promise's value. */
export const onPool = (fn: ReturnType<typeof libc.func>, ...args: unknown[]): Promise<number> =>
  new Promise((resolve, reject) => {
    fn.async(...args, (error: Error | null, result: number) => (error ? reject(error) : resolve(result)))
  })
