/**
 * A network namespace of its own with nothing in it but `lo`, for sockets that nobody else can reach. It has no name
 * and no file: it is gone when the last socket in it and {@link Netns} itself are.
 *
 * Namespaces belong to threads, and a socket to the namespace of the thread that makes it. The main thread, on which
 * all JavaScript runs, enters for the length of a function call and comes back before anything else can run. Threads
 * that exist keep theirs, but a new one begins where its maker is: libuv's pool, which is made when it is first used,
 * must not be made inside. Failures throw SYSCALL_FAILED.
 */
import { closeSync, openSync, stat } from 'node:fs'
import * as libc from './libc.ts'

const CLONE_NEWNET = 0x40000000
const AF_INET6 = 10
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000
const SIOCSIFFLAGS = 0x8914
const IFF_UP = 1
const ifreqBytes = 40
const flagsOffset = 16
/** The calling thread's, not the process's: the two are the same on the main thread only. */
const ownNamespace = '/proc/thread-self/ns/net'

export interface Netns extends Disposable {
  /**
   * Runs `work` in the namespace; sockets it makes stay there. It must do all it does before it returns: a promise
   * would go on outside, and is refused.
   */
  run<T>(work: () => T extends PromiseLike<unknown> ? never : T): T
}

/** Makes a namespace and brings its `lo` up. Needs CAP_SYS_ADMIN. */
export function createNetns(): Netns {
  // Makes all threads of the pool now, if there are none yet.
  stat('/', () => {})
  const inside = leaving(() => {
    libc.must(libc.unshare(CLONE_NEWNET), 'unshare CLONE_NEWNET')
    bringLoopbackUp()
    return openSync(ownNamespace, 'r')
  })
  let open = true
  return {
    run: (work) =>
      leaving(() => {
        libc.must(libc.setns(inside, CLONE_NEWNET), 'setns')
        return work()
      }),
    [Symbol.dispose]() {
      if (open) closeSync(inside)
      open = false
    },
  }
}

/** Runs what changes the thread's namespace, and comes back whatever happens. */
function leaving<T>(work: () => T): T {
  const home = openSync(ownNamespace, 'r')
  try {
    return work()
  } finally {
    const returned = libc.setns(home, CLONE_NEWNET)
    closeSync(home)
    // A daemon in the wrong network would go on to do wrong things: rather none at all.
    if (returned < 0) process.abort()
  }
}

function bringLoopbackUp(): void {
  const socket = libc.must(libc.socket(AF_INET6, SOCK_DGRAM_CLOEXEC, 0), 'socket')
  try {
    const request = Buffer.alloc(ifreqBytes)
    request.write('lo')
    request.writeInt16LE(IFF_UP, flagsOffset)
    libc.must(libc.ioctl(socket, SIOCSIFFLAGS, request), 'ioctl SIOCSIFFLAGS')
  } finally {
    libc.close(socket)
  }
}
