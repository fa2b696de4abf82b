/**
 * How busy the functions that are awake are, as the kernel says it: connections and the accept queue's length, never
 * a guess from requests. The table is read for all of them at once, and only while somebody is awake: a server whose
 * functions sleep wakes up for nothing.
 */
import { listTcp, type TcpSocket, tcpState } from '../host/native/inet-diag.ts'
import type { Ipv6 } from '../values/ipv6.ts'

export interface Traffic {
  /** Connections that somebody holds, or that are still sending what was left to send. */
  readonly connections: number
  /** Connections that wait to be accepted. */
  readonly queued: number
  /** Ports on which somebody listens. */
  readonly listening: number
}

export interface TrafficListener {
  readonly address: Ipv6
  readonly ports: readonly number[]
  onTraffic(traffic: Traffic): void
}

export interface TrafficWatch extends Disposable {
  /** Reports to `listener` every {@link tickMs} until disposed. */
  add(listener: TrafficListener): Disposable
  /** What there is for one listener now. */
  look(listener: Pick<TrafficListener, 'address' | 'ports'>): Traffic
}

export const tickMs = 250

const { established, synReceived, finWait1, finWait2, closeWait, lastAck, listen } = tcpState
const states = [established, synReceived, finWait1, finWait2, closeWait, lastAck, listen]

export function createTrafficWatch({ onError }: { onError: (error: unknown) => void }): TrafficWatch {
  const listeners = new Set<TrafficListener>()
  let timer: NodeJS.Timeout | undefined

  const tick = (): void => {
    try {
      const table = tabulate(listTcp(states))
      for (const listener of [...listeners]) listener.onTraffic(sum(table, listener))
    } catch (error) {
      onError(error)
    }
  }
  const stopWhenIdle = (): void => {
    if (listeners.size > 0) return
    clearInterval(timer)
    timer = undefined
  }

  return {
    add(listener) {
      listeners.add(listener)
      timer ??= setInterval(tick, tickMs)
      return {
        [Symbol.dispose]() {
          listeners.delete(listener)
          stopWhenIdle()
        },
      }
    },
    look: (listener) => sum(tabulate(listTcp(states)), listener),
    [Symbol.dispose]() {
      listeners.clear()
      stopWhenIdle()
    },
  }
}

const keyOf = (address: Ipv6, port: number): string => `${address}.${port}`

function tabulate(sockets: readonly TcpSocket[]): ReadonlyMap<string, Traffic> {
  const table = new Map<string, { connections: number; queued: number; listening: number }>()
  for (const { state, local, localPort, receiveQueue } of sockets) {
    const key = keyOf(local, localPort)
    const entry = table.get(key) ?? { connections: 0, queued: 0, listening: 0 }
    table.set(key, entry)
    if (state === listen) {
      entry.queued += receiveQueue
      entry.listening = 1
    } else entry.connections++
  }
  return table
}

function sum(
  table: ReadonlyMap<string, Traffic>,
  { address, ports }: Pick<TrafficListener, 'address' | 'ports'>,
): Traffic {
  const entries = ports.map((port) => table.get(keyOf(address, port)))
  return {
    connections: entries.reduce((total, entry) => total + (entry?.connections ?? 0), 0),
    queued: entries.reduce((total, entry) => total + (entry?.queued ?? 0), 0),
    listening: entries.reduce((total, entry) => total + (entry?.listening ?? 0), 0),
  }
}
