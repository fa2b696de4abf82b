/**
 * What the functions print, kept in memory for `faas logs`: the last lines of each function, bounded in number and
 * in bytes, whatever a handler prints. Lines longer than {@link maxLineBytes} are cut.
 */

export interface LogEntry {
  readonly time: Date
  readonly function: string
  /** The container's id; empty where the platform speaks of the function as a whole. */
  readonly instance: string
  readonly stream: 'stdout' | 'stderr' | 'platform'
  readonly text: string
}

export const maxLineBytes = 8 * 1024
const maxLines = 1000
const maxBytes = 256 * 1024

export interface FunctionLogs {
  append(entry: LogEntry): void
  /** The last `count` lines of a function, oldest first. */
  tail(name: string, count: number): readonly LogEntry[]
  /** Calls `onEntry` for each new line until disposed. */
  follow(name: string, onEntry: (entry: LogEntry) => void): Disposable
  /** Forgets a function's lines; those who follow stay. */
  forget(name: string): void
}

interface Ring {
  entries: LogEntry[]
  bytes: number
}

export function createFunctionLogs(): FunctionLogs {
  const rings = new Map<string, Ring>()
  const followers = new Map<string, Set<(entry: LogEntry) => void>>()
  return {
    append(entry) {
      const ring = rings.get(entry.function) ?? { entries: [], bytes: 0 }
      rings.set(entry.function, ring)
      ring.entries.push(entry)
      ring.bytes += entry.text.length
      trim(ring)
      for (const onEntry of followers.get(entry.function) ?? []) onEntry(entry)
    },
    tail: (name, count) => (count <= 0 ? [] : (rings.get(name)?.entries.slice(-count) ?? [])),
    follow(name, onEntry) {
      const set = followers.get(name) ?? new Set()
      followers.set(name, set)
      set.add(onEntry)
      return {
        [Symbol.dispose]() {
          set.delete(onEntry)
          if (set.size === 0 && followers.get(name) === set) followers.delete(name)
        },
      }
    },
    forget: (name) => void rings.delete(name),
  }
}

/** Drops the oldest lines in one go, well below the bounds, so that each line costs a constant on average. */
function trim(ring: Ring): void {
  if (ring.entries.length <= maxLines * 1.25 && ring.bytes <= maxBytes * 1.25) return
  let first = Math.max(ring.entries.length - maxLines, 0)
  let bytes = ring.entries.slice(first).reduce((sum, entry) => sum + entry.text.length, 0)
  for (; bytes > maxBytes; first++) bytes -= ring.entries[first]?.text.length ?? 0
  ring.entries = ring.entries.slice(first)
  ring.bytes = bytes
}
