/**
 * Serves one function of the `fd` contract: its listener, the connections that wait for an instance, and the
 * instances that hold one each. The daemon accepts and passes; it never reads a byte of a connection.
 *
 * A connection ends in one of three ways: *passed* to an instance; *refused* with a reset when no instance became
 * free in time or the packet filter's rule is not in place; *failed* with a reset when the instance ended or did
 * not connect in time.
 */

import { controlSocketDestination, openControlSocket, type WaitingHandler } from '../contracts/fd.ts'
import type { ServedFunction } from '../functions/function.ts'
import { acceptTcp, closeFd, resetTcp } from '../host/native/sockets.ts'
import type { ConnectionOutcome, Metrics } from '../telemetry/metrics.ts'
import type { Digest } from '../values/digest.ts'
import { toFaasError } from '../values/errors.ts'
import { type Instance, type InstanceDeps, startInstance } from './instance.ts'
import type { ListenerGroup } from './listeners.ts'
import type { Service } from './service.ts'

/** Connections taken from the kernel that wait for an instance; further ones wait in the kernel's accept queue. */
const maxWaiting = 256
/** After the process or the system ran out of descriptors: pause instead of spinning on a readable listener. */
const acceptPauseMs = 200

export interface FdServiceDeps extends InstanceDeps {
  readonly metrics: Metrics
  /** Whether sockets may be passed to functions now: the packet filter's rule is in place. */
  readonly mayPass: () => boolean
}

interface Connection {
  /** Ours to close, in {@link end}. */
  readonly fd: number
  readonly open: boolean
  end(outcome: ConnectionOutcome): void
}

export function createFdService(fn: ServedFunction, group: ListenerGroup, deps: FdServiceDeps): Service {
  let current = fn
  let closed = false
  let accepting = false
  let pause: NodeJS.Timeout | undefined
  let failure: string | undefined
  const waiting: Connection[] = []
  const counts = { accepted: 0, passed: 0, refused: 0, failed: 0 }
  /** Every slot that is taken, with the version that takes it (undefined where it is not known). */
  const slots = new Map<Promise<void>, Digest | undefined>()
  const ids = new Set<string>()
  const listeners = group.open(fn.ports)
  listeners.listen()
  const [listener = -1] = listeners.byTarget.values()

  const connection = (fd: number): Connection => {
    counts.accepted++
    deps.metrics.connectionAccepted(fn.name)
    let open = true
    return {
      fd,
      get open() {
        return open
      },
      end(outcome) {
        if (!open) return
        open = false
        counts[outcome]++
        deps.metrics.connectionEnded(fn.name, outcome)
        if (outcome === 'passed') closeFd(fd)
        else resetTcp(fd)
      },
    }
  }

  const occupy = (version: Digest | undefined, work: Promise<void>): void => {
    const slot = work.finally(() => {
      slots.delete(slot)
      deps.metrics.instances(fn.name, slots.size)
      const next = closed ? undefined : waiting.shift()
      if (next) occupy(current.image, serve(next))
      if (accepting && pause === undefined) watch()
    })
    slots.set(slot, version)
    deps.metrics.instances(fn.name, slots.size)
  }

  /** From an accepted connection to the end of the instance that got it. Never rejects. */
  const serve = async (taken: Connection): Promise<void> => {
    const version = current
    const started = performance.now()
    let instance: Instance | undefined
    let overdue = false
    const kill = (why: string) => () => {
      taken.end('failed')
      overdue = true
      deps.log.warn(`${version.name}/${instance?.id ?? 'starting'}`, why)
      instance?.kill()
    }
    const { connectMs, totalMs } = version.options.timeouts
    const why = `did not connect to its control socket within ${connectMs} ms and was ended`
    const onConnect = (handler: WaitingHandler): void => {
      clearTimeout(connectTimer)
      using waitingHandler = handler
      deps.metrics.instanceReady(version.name, (performance.now() - started) / 1000)
      if (overdue) return
      if (!deps.mayPass()) return taken.end('refused')
      const passed = waitingHandler.handOver(taken.fd)
      taken.end(passed ? 'passed' : 'failed')
      if (passed) failure = undefined
    }
    const connectTimer = setTimeout(kill(why), connectMs)
    const totalTimer = setTimeout(kill(`did not end within ${totalMs} ms and was ended`), totalMs)
    try {
      instance = await startInstance(
        version,
        (directory) => openControlSocket(directory, version.user, deps.poller, onConnect),
        deps,
      )
      ids.add(instance.id)
      if (overdue) instance.kill()
      await instance.ended
      if (taken.open) failure = `the instance ended before it connected to ${controlSocketDestination}`
    } catch (error) {
      failure = toFaasError(error).message
      deps.log.error(version.name, `an instance could not be started: ${failure}`)
      deps.logs.append({
        time: new Date(),
        function: version.name,
        instance: '',
        stream: 'platform',
        text: failure,
      })
    } finally {
      clearTimeout(connectTimer)
      clearTimeout(totalTimer)
      if (instance) ids.delete(instance.id)
      taken.end('failed')
    }
  }

  const take = (fd: number): void => {
    const taken = connection(fd)
    if (!deps.mayPass()) return taken.end('refused')
    if (slots.size < current.options.maxInstances) return occupy(current.image, serve(taken))
    const timer = setTimeout(() => {
      const index = waiting.indexOf(queued)
      if (index >= 0) waiting.splice(index, 1)
      queued.end('refused')
      if (accepting && pause === undefined) watch()
    }, current.options.timeouts.queueMs)
    const queued: Connection = {
      fd,
      get open() {
        return taken.open
      },
      end(outcome) {
        clearTimeout(timer)
        taken.end(outcome)
      },
    }
    waiting.push(queued)
  }

  let watched = false
  const watch = (): void => {
    if (watched || closed || waiting.length >= maxWaiting) return
    watched = true
    deps.poller.watch(listener, onReadable)
  }
  const unwatch = (): void => {
    if (watched) deps.poller.unwatch(listener)
    watched = false
  }
  const onReadable = (): void => {
    try {
      while (waiting.length < maxWaiting) {
        const accepted = acceptTcp(listener)
        if (!accepted) return
        take(accepted.fd)
      }
      unwatch()
    } catch (error) {
      deps.log.error(fn.name, `no connection could be accepted for now: ${toFaasError(error).message}`)
      unwatch()
      pause = setTimeout(() => {
        pause = undefined
        if (accepting) watch()
      }, acceptPauseMs)
    }
  }

  return {
    get current() {
      return current
    },
    update(next) {
      current = next
      failure = undefined
    },
    setAccepting(wanted) {
      accepting = wanted
      if (wanted && pause === undefined) watch()
      if (!wanted) unwatch()
    },
    adopt(instance) {
      const timer = setTimeout(() => instance.kill(), current.options.timeouts.totalMs)
      ids.add(instance.id)
      const ended = async (): Promise<void> => {
        await instance.ended
        clearTimeout(timer)
        ids.delete(instance.id)
      }
      occupy(undefined, ended())
    },
    async drained() {
      const old = [...slots].filter(([, version]) => version !== current.image).map(([slot]) => slot)
      await Promise.all(old)
    },
    async close() {
      closed = true
      accepting = false
      clearTimeout(pause)
      unwatch()
      listeners.gone()
      for (const queued of waiting.splice(0)) queued.end('refused')
      await Promise.all(slots.keys())
    },
    stats: () => ({
      instances: slots.size,
      ids: [...ids],
      frozen: false,
      waiting: waiting.length,
      ...counts,
      failure,
    }),
  }
}
