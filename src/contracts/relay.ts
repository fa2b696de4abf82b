/**
 * The way for servers that the host's listener cannot be given to: nginx knows the family of its sockets by its
 * configuration, and closes a connection at once whose caller has an address of another one. So where it listens on an
 * IPv4 socket only, that socket stays its own, inside of the container, and a process of ours accepts from the host's
 * listener and copies to it (relay-program.ts). The server then sees 127.0.0.1 for a caller.
 *
 * The relay is in the container's network and cgroups: it is frozen, limited and ended with the container, and goes on
 * when the daemon ends.
 */
import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, readlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Programs that refuse a caller by IPv6 on a socket that they made for IPv4. */
const strictPrograms: ReadonlySet<string> = new Set(['nginx', 'angie'])

export function refusesIpv6Callers(process: number): boolean {
  try {
    return strictPrograms.has(basename(readlinkSync(`/proc/${process}/exe`)))
  } catch {
    return false
  }
}

const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }
const cgroupRoot = '/sys/fs/cgroup'
const programPath = fileURLToPath(new URL('./relay-program.ts', import.meta.url))

/**
 * The files of a process's cgroups that take further processes, from the text of its /proc/PID/cgroup (cgroups(7)).
 * Where it is in a hierarchy's root, it is not there for its own sake.
 */
export function cgroupFilesOf(text: string): readonly string[] {
  const groups = text.split('\n').flatMap((line) => {
    const [, controllers = '', path = '/'] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
    return path === '/' ? [] : [{ controllers: controllers.replace(/^name=/, ''), path }]
  })
  const isUnified = /^0::[^\n]*\n?$/.test(text)
  return groups.map(({ controllers, path }) => {
    const hierarchy = controllers === '' && !isUnified ? 'unified' : controllers
    return join(cgroupRoot, hierarchy, path, 'cgroup.procs')
  })
}

/** Where a relay runs: in the container's network and cgroups, whatever its processes have become since. */
export interface RelayPlace {
  /** A descriptor of the network namespace. It stays the place's owner's. */
  readonly network: number
  readonly cgroups: readonly string[]
}

/** Looks where a process is: call it while the process is known to be the container's. Throws what `/proc` does. */
export function openRelayPlace(pid: number): RelayPlace {
  const cgroups = cgroupFilesOf(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))
  if (cgroups.length === 0) throw new Error(`process ${pid} is in no cgroup of its own`)
  return { network: openSync(`/proc/${pid}/ns/net`, 'r'), cgroups }
}

export interface RelayOptions {
  /** The host's listener. It stays the caller's. */
  readonly listener: number
  readonly place: RelayPlace
  /** Where its server listens, inside. */
  readonly port: number
  /** Called when the relay ends by itself. */
  readonly onEnded: (why: string) => void
}

/** Starts a relay; disposing of it ends it. */
export function startRelay({ listener, place, port, onEnded }: RelayOptions): Disposable {
  let disposed = false
  let words = ''
  const node = [process.execPath, '--max-old-space-size=32', programPath, String(port), ...place.cgroups]
  const child = spawn('nsenter', ['--net=/proc/self/fd/4', '--', ...node], {
    stdio: ['ignore', 'ignore', 'pipe', listener, place.network],
    env: environment,
    cwd: '/',
    // It outlives us, as the container does.
    detached: true,
  })
  child.stderr?.on('data', (part: Buffer) => {
    words = `${words}${part.toString()}`.slice(-500)
  })
  child.once('error', (error) => onEnded(error.message))
  child.once('exit', (code, signal) => {
    if (!disposed) onEnded(`its relay has ended (${code ?? signal}): ${words.trim()}`)
  })
  child.unref()
  return {
    [Symbol.dispose]() {
      disposed = true
      child.kill('SIGKILL')
    },
  }
}

interface SocketPlace {
  readonly process: number
  readonly target: number
}

/** The relays of one instance: at most one for each port, once a socket that waits for one listens. */
export interface Relays extends Disposable {
  /** The process has bound `port` on a socket that the listener cannot be given to. */
  expect(port: number, socket: SocketPlace, place: RelayPlace): void
  /** A socket listens now: its relay starts, if it is one that waits for one. */
  start(socket: SocketPlace): void
  /** The listener has been given to a socket after all. */
  stop(port: number): void
}

/** Many bind an IPv6 socket next, and need no relay: nginx does within a millisecond. */
const delayMs = 100
/** After a relay has ended by itself, by the kernel's want of memory for one; doubled each time. */
const restartMs = 1_000
const longestRestartMs = 60_000

export function createRelays({
  listeners,
  onListening,
  onRelay,
  onTrouble,
}: {
  readonly listeners: ReadonlyMap<number, number>
  readonly onListening: (port: number) => void
  readonly onRelay?: (port: number) => void
  readonly onTrouble: (message: string) => void
}): Relays {
  const expected = new Map<number, SocketPlace>()
  const places = new Map<number, RelayPlace>()
  const running = new Map<number, Disposable>()

  const begin = (port: number, place: RelayPlace, afterMs: number, againMs: number): Disposable => {
    let relay: Disposable | undefined
    const onEnded = (why: string): void => {
      onTrouble(why)
      if (!running.has(port)) return
      running.set(port, begin(port, place, againMs, Math.min(againMs * 2, longestRestartMs)))
    }
    const timer = setTimeout(() => {
      const listener = listeners.get(port)
      if (listener === undefined) return
      try {
        relay = startRelay({ listener, place, port, onEnded })
        onRelay?.(port)
      } catch (error) {
        onTrouble(`a relay for port ${port} cannot be started: ${String(error)}`)
      }
    }, afterMs)
    return {
      [Symbol.dispose]() {
        clearTimeout(timer)
        relay?.[Symbol.dispose]()
      },
    }
  }
  const stop = (port: number): void => {
    expected.delete(port)
    running.get(port)?.[Symbol.dispose]()
    running.delete(port)
    const place = places.get(port)
    places.delete(port)
    if (place) closeSync(place.network)
  }
  return {
    expect(port, socket, place) {
      // All places of one container are the same: the first is kept.
      if (places.has(port)) closeSync(place.network)
      else places.set(port, place)
      expected.set(port, socket)
    },
    start({ process, target }) {
      for (const [port, socket] of expected) {
        if (socket.process !== process || socket.target !== target) continue
        expected.delete(port)
        const place = places.get(port)
        if (place && !running.has(port)) running.set(port, begin(port, place, delayMs, restartMs))
        onListening(port)
      }
    },
    stop,
    [Symbol.dispose]() {
      for (const port of [...places.keys()]) stop(port)
    },
  }
}
