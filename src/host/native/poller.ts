/**
 * One epoll for many raw descriptors. The wait runs on libuv's pool and occupies one of its threads for as long
 * as the poller lives; callbacks run on the main thread. Level-triggered: a callback that leaves a descriptor
 * readable is called again. The poller never closes a descriptor it watches: unwatch it, then close it.
 */
import * as libc from './libc.ts'

const EPOLL_CLOEXEC = 0o2000000
const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const EPOLLIN = 1
const EFD_CLOEXEC_NONBLOCK = 0o2004000
/** `struct epoll_event` is packed on x86-64 and padded to 16 bytes elsewhere. */
const eventBytes = process.arch === 'x64' ? 12 : 16
const dataOffset = process.arch === 'x64' ? 4 : 8
const maxEvents = 256

export interface Poller extends AsyncDisposable {
  /** Calls `onReady` with the epoll event bits whenever `fd` is readable or has hung up. */
  watch(fd: number, onReady: (events: number) => void): void
  /** Stops watching; a callback that was already on its way is not called. Unknown descriptors are no error. */
  unwatch(fd: number): void
}

interface Watch {
  readonly onReady: (events: number) => void
}

/** `onError` gets what a callback throws: one watcher's failure must not end the others. */
export function createPoller({ onError }: { onError: (error: unknown) => void }): Poller {
  const epoll = libc.must(libc.epoll_create1(EPOLL_CLOEXEC), 'epoll_create1')
  const waker = libc.must(libc.eventfd(0, EFD_CLOEXEC_NONBLOCK), 'eventfd')
  const watches = new Map<number, Watch>()
  const events = Buffer.alloc(eventBytes * maxEvents)
  let disposed = false

  const control = (operation: number, fd: number): number => {
    const event = Buffer.alloc(eventBytes)
    event.writeUInt32LE(EPOLLIN, 0)
    event.writeInt32LE(fd, dataOffset)
    return libc.epoll_ctl(epoll, operation, fd, event)
  }
  libc.must(control(EPOLL_CTL_ADD, waker), 'epoll_ctl')

  const dispatch = (count: number): void => {
    // Copied out first: a callback may unwatch and close, and a new descriptor may reuse the number.
    const ready = Array.from({ length: count }, (_, index) => {
      const fd = events.readInt32LE(index * eventBytes + dataOffset)
      return { watch: watches.get(fd), fd, bits: events.readUInt32LE(index * eventBytes) }
    })
    for (const { watch, fd, bits } of ready) {
      if (!watch || watches.get(fd) !== watch) continue
      try {
        watch.onReady(bits)
      } catch (error) {
        onError(error)
      }
    }
  }

  const loop = async (): Promise<void> => {
    while (!disposed) {
      const count = await libc.onPool(libc.epoll_wait, epoll, events, maxEvents, -1)
      if (!disposed) dispatch(Math.max(count, 0))
    }
    libc.close(epoll)
    libc.close(waker)
  }
  const ended = loop()
  const wake = (): void => {
    const one = Buffer.alloc(8)
    one.writeUInt8(1)
    libc.write(waker, one, 8)
  }
  // process.exit() joins the pool's threads, and ours would wait for an event that may never come.
  process.on('exit', wake)

  return {
    watch(fd, onReady) {
      libc.must(control(EPOLL_CTL_ADD, fd), 'epoll_ctl')
      watches.set(fd, { onReady })
    },
    unwatch(fd) {
      if (watches.delete(fd)) control(EPOLL_CTL_DEL, fd)
    },
    async [Symbol.asyncDispose]() {
      if (!disposed) {
        disposed = true
        process.off('exit', wake)
        wake()
      }
      await ended
    },
  }
}
