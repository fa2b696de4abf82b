/**
 * The whole platform in the foreground, without systemd: WireGuard, CoreDNS and faasd, started in the guide's order,
 * watched, and stopped in reverse. What ends is started again; a link that goes is made again.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../host/clock.ts'
import type { Exec } from '../host/exec.ts'
import { readTextIfExists } from '../host/files.ts'
import { acquireLock } from '../host/lock.ts'
import { drainNetlink, openLinkMonitor } from '../host/native/netlink.ts'
import { createPoller } from '../host/native/poller.ts'
import { closeFd } from '../host/native/sockets.ts'
import { mountPointsBelow, unmount } from '../images/mounts.ts'
import { createZoneFile, ensureCorefile } from '../net/dns.ts'
import { createFirewall } from '../net/firewall.ts'
import { createWireguard } from '../net/wireguard.ts'
import { ensureServerFiles } from '../net/wireguard-files.ts'
import { functionNameOf } from '../requests/instance.ts'
import { detectBundleHost } from '../runtime/bundle.ts'
import { createCgroups } from '../runtime/cgroups.ts'
import { createCrun } from '../runtime/crun.ts'
import { createRunc } from '../runtime/runc.ts'
import type { Log } from '../telemetry/log.ts'
import { FaasError, toFaasError } from '../values/errors.ts'
import type { Config } from './config.ts'

export interface SupervisorDeps {
  readonly config: Config
  readonly exec: Exec
  readonly clock: Clock
  readonly log: Log
  /** The command that is faasd. */
  readonly daemonCommand: readonly [string, ...string[]]
  /** The directory of CoreDNS's configuration. */
  readonly corednsDirectory?: string
}

/** The lock of `faas up`, with the pid of the one who holds it. */
export const upLockPath = (runDirectory: string): string => join(runDirectory, 'up.lock')

/** How long faasd and CoreDNS have to stop before they are killed. faasd waits for requests in flight. */
const stopTimeoutMs = 15_000
const firstBackoffMs = 100
const longestBackoffMs = 2_000
/** A program that ran this long had started well. */
const settledMs = 10_000

/**
 * Starts the platform and keeps it up until disposed. Throws ALREADY_RUNNING when another one does,
 * WIREGUARD_CONFIG_REFUSED, PROGRAM_MISSING, COMMAND_FAILED.
 */
export async function supervisePlatform(deps: SupervisorDeps): Promise<AsyncDisposable> {
  const { config, exec, log, corednsDirectory = '/etc/coredns' } = deps
  await using starting = new AsyncDisposableStack()
  await mkdir(config.runDirectory, { recursive: true, mode: 0o755 })
  starting.use(acquireLock(upLockPath(config.runDirectory)))
  await writeFile(pidPath(config.runDirectory), `${process.pid}\n`)
  starting.defer(() => rm(pidPath(config.runDirectory), { force: true }))

  const { publicKey } = await ensureServerFiles()
  const wireguard = createWireguard({ exec })
  // The table stays for as long as a passed socket may live: it goes when faasd and its instances have.
  starting.defer(() => createFirewall({ exec }).cleanUp())
  starting.defer(() => wireguard.down())
  await wireguard.up(publicKey)
  log.info('up', `wg0 is up (${await wireguard.kind()})`)
  const restoreLink = async (): Promise<void> => {
    if (await wireguard.exists()) return
    log.warn('up', 'wg0 is gone; making it again')
    await wireguard.up(publicKey)
  }
  starting.use(keepLink(restoreLink, deps))

  const zonePath = join(config.root, 'dns', 'faas.db')
  const corefile = join(corednsDirectory, 'Corefile')
  const { upstreams } = config
  await ensureCorefile({ path: corefile, zonePath, ...(upstreams === undefined ? {} : { upstreams }) })
  // CoreDNS does not start without its zone; faasd fills it.
  if ((await readTextIfExists(zonePath)) === undefined) await createZoneFile({ path: zonePath }).apply([])
  starting.use(keepProgram('coredns', ['coredns', '-conf', corefile], deps))
  starting.defer(() => endInstances(deps))
  starting.use(keepProgram('faasd', deps.daemonCommand, deps))
  return starting.move()
}

/** Ends what outlives a daemon on purpose, and must not outlive the platform: instances, and their mounted roots. */
async function endInstances({ config, exec, log }: SupervisorDeps): Promise<void> {
  const { cgroups: facts } = await detectBundleHost()
  const cgroups = createCgroups({ facts, parent: config.cgroupParent })
  for (const runtime of [createRunc({ exec, cgroups }), createCrun({ exec, cgroups })]) {
    const containers = await runtime.list().catch(() => [])
    const ours = containers.filter(({ id }) => functionNameOf(id) !== undefined)
    for (const { id } of ours) await runtime.delete(id)
    if (ours.length > 0) log.info('up', `${ours.length} instances that still ran were ended`)
  }
  for (const point of await mountPointsBelow(join(config.root, 'images'))) unmount(point)
}

/** Runs `restore` whenever a link or an address has changed. */
function keepLink(
  restore: () => Promise<void>,
  { clock, log }: Pick<SupervisorDeps, 'clock' | 'log'>,
): AsyncDisposable {
  const poller = createPoller({ onError: (error) => log.error('up', String(error)) })
  const monitor = openLinkMonitor()
  let turn: Promise<void> = Promise.resolve()
  const stopping = new AbortController()
  const look = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      try {
        return await restore()
      } catch (error) {
        log.error('up', `wg0: ${toFaasError(error).message}`)
        // The attempt itself made events, or the cause makes none: try again in a while either way.
        await clock.sleep(longestBackoffMs, stopping.signal)
        drainNetlink(monitor)
      }
    }
  }
  let planned = false
  poller.watch(monitor, () => {
    drainNetlink(monitor)
    if (planned) return
    planned = true
    turn = turn.then(() => {
      planned = false
      return look()
    })
  })
  return {
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await turn
      poller.unwatch(monitor)
      closeFd(monitor)
      await poller[Symbol.asyncDispose]()
    },
  }
}

/**
 * Runs a program and starts it again whenever it ends, with a growing pause while it does not stay up. It ends when this
 * process does, however that ends, so that the next `faas up` finds its place free. It is in a session of its own: Ctrl-C
 * in the terminal is for this process, which stops all in their order.
 */
function keepProgram(
  name: string,
  [command, ...args]: readonly [string, ...string[]],
  { clock, log }: Pick<SupervisorDeps, 'clock' | 'log'>,
): AsyncDisposable {
  const stopping = new AbortController()
  let child: ChildProcess | undefined

  const runOnce = (): Promise<string> =>
    new Promise((resolve) => {
      const started = spawn('setpriv', ['--pdeathsig', 'TERM', '--', command, ...args], {
        detached: true,
        stdio: ['ignore', 'inherit', 'inherit'],
      })
      child = started
      started.on('error', (error) => resolve(error.message))
      started.on('exit', (code, signal) => resolve(signal ? `ended by ${signal}` : `exit code ${code}`))
    })
  const keep = async (): Promise<void> => {
    let backoffMs = firstBackoffMs
    while (!stopping.signal.aborted) {
      const startedMs = clock.monotonicMs()
      const ending = await runOnce()
      child = undefined
      if (stopping.signal.aborted) return
      if (clock.monotonicMs() - startedMs > settledMs) backoffMs = firstBackoffMs
      log.warn('up', `${name} has ended (${ending}); starting it again in ${backoffMs} ms`)
      await clock.sleep(backoffMs, stopping.signal)
      backoffMs = Math.min(backoffMs * 2, longestBackoffMs)
    }
  }
  const kept = keep()
  return {
    async [Symbol.asyncDispose]() {
      stopping.abort()
      child?.kill('SIGTERM')
      const timer = setTimeout(() => child?.kill('SIGKILL'), stopTimeoutMs)
      await kept
      clearTimeout(timer)
    },
  }
}

/** The pid of the `faas up` that runs, or undefined. */
export async function findSupervisor(runDirectory: string): Promise<number | undefined> {
  const text = await readTextIfExists(pidPath(runDirectory))
  const pid = Number(text?.trim())
  if (!Number.isInteger(pid) || pid <= 1) return undefined
  try {
    using _free = acquireLock(upLockPath(runDirectory))
    return undefined
  } catch (error) {
    if (error instanceof FaasError && error.code === 'ALREADY_RUNNING') return pid
    throw error
  }
}

/** Where `faas up` writes its pid while it holds the lock. */
export const pidPath = (runDirectory: string): string => join(runDirectory, 'up.pid')
