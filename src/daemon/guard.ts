/**
 * Watches the kernel's state that others can disturb, and puts it right: the packet filter (without our rule no
 * socket is passed), the tunnel's link and its addresses, WireGuard's peers. Nothing is polled: netlink tells that
 * something changed, and then the state itself is looked at.
 */
import type { Reconciler } from '../functions/execute.ts'
import { drainNetlink, openLinkMonitor, openNftablesMonitor } from '../host/native/netlink.ts'
import type { Poller } from '../host/native/poller.ts'
import { closeFd } from '../host/native/sockets.ts'
import type { Firewall } from '../net/firewall.ts'
import type { Log } from '../telemetry/log.ts'

export interface GuardDeps {
  readonly poller: Poller
  readonly firewall: Pick<Firewall, 'verify'>
  readonly reconciler: Pick<Reconciler, 'reconcile' | 'distrustFilter'>
  readonly peers: { reconcile(): Promise<void> }
  /** Lets connections be passed, or not. */
  readonly setGate: (open: boolean) => void
  readonly log: Log
}

export interface Guard extends AsyncDisposable {
  /** Looks at everything now and puts it right. Never rejects. */
  check(): Promise<void>
  /** Whether sockets may be passed. */
  isGateOpen(): boolean
  /** What could not be put right at the last look; empty when all is well. */
  troubles(): readonly string[]
}

/** Events come in bursts, our own changes among them: one look serves a burst. */
const settleMs = 50
/** While something could not be put right it is tried again, without an event. */
const retryMs = 1_000
const longestRetryMs = 30_000

export function createGuard(deps: GuardDeps): Guard {
  const { poller, firewall, reconciler, peers, setGate, log } = deps
  let gateOpen = false
  let troubles: readonly string[] = []
  let timer: NodeJS.Timeout | undefined
  let dueMs = 0
  let backoffMs = retryMs
  let turn: Promise<void> = Promise.resolve()
  let disposed = false

  const isFilterRight = (): Promise<boolean> =>
    firewall.verify().catch((error: unknown) => {
      log.error('guard', `the packet filter cannot be read: ${String(error)}`)
      return false
    })

  const moveGate = (open: boolean): void => {
    if (open === gateOpen) return
    gateOpen = open
    setGate(open)
    if (!open) log.error('guard', 'the rule for passed sockets is not in place: no connection is passed')
    else log.info('guard', 'the rule for passed sockets is in place')
  }

  const look = async (): Promise<void> => {
    if (!(await isFilterRight())) {
      moveGate(false)
      reconciler.distrustFilter()
    }
    const failures = await reconciler.reconcile()
    moveGate(await isFilterRight())
    const peersTrouble = await peers.reconcile().then(
      () => [],
      (error: unknown) => [`peers: ${error instanceof Error ? error.message : String(error)}`],
    )
    const found = [...failures.map(({ step, error }) => `${step.kind}: ${error.message}`), ...peersTrouble]
    if (found.join() !== troubles.join()) {
      for (const trouble of found) log.warn('guard', trouble)
      if (found.length === 0) log.info('guard', 'everything is as it should be again')
    }
    troubles = found
    if (found.length === 0 && gateOpen) backoffMs = retryMs
    else {
      schedule(backoffMs)
      backoffMs = Math.min(backoffMs * 2, longestRetryMs)
    }
  }

  const check = (): Promise<void> => {
    turn = turn.then(look).catch((error: unknown) => log.error('guard', String(error)))
    return turn
  }

  /** The earlier of two wishes counts. */
  const schedule = (ms: number): void => {
    const wantedMs = performance.now() + ms
    if (disposed || (timer && dueMs <= wantedMs)) return
    clearTimeout(timer)
    dueMs = wantedMs
    timer = setTimeout(() => {
      timer = undefined
      void check()
    }, ms)
  }

  const monitors = [openNftablesMonitor(), openLinkMonitor()]
  for (const monitor of monitors) {
    poller.watch(monitor, () => {
      drainNetlink(monitor)
      schedule(settleMs)
    })
  }

  return {
    check,
    isGateOpen: () => gateOpen,
    troubles: () => troubles,
    async [Symbol.asyncDispose]() {
      disposed = true
      clearTimeout(timer)
      for (const monitor of monitors) {
        poller.unwatch(monitor)
        closeFd(monitor)
      }
      await turn
    },
  }
}
