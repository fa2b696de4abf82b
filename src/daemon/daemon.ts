/**
 * faasd from its start to its stop. The start order is the recovery order: what earlier runs left is found, what the
 * registry wants is put in place, and only then is anything answered. A first start and one after a crash are the same.
 */
import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { listenApi } from '../api/listen.ts'
import { createFindUser, findFaasGroup } from '../api/local-users.ts'
import { createApi } from '../api/server.ts'
import { createDeploy } from '../functions/deploy.ts'
import { createReconciler } from '../functions/execute.ts'
import { openRegistry } from '../functions/registry.ts'
import { createNameLocks, createRelease } from '../functions/release.ts'
import { createRemove } from '../functions/remove.ts'
import { createRollback } from '../functions/rollback.ts'
import type { Clock } from '../host/clock.ts'
import type { Exec } from '../host/exec.ts'
import { readFailpoints } from '../host/failpoints.ts'
import { acquireLock } from '../host/lock.ts'
import { socketOwner } from '../host/native/netlink.ts'
import { raiseOpenFiles } from '../host/native/open-files.ts'
import { createPoller } from '../host/native/poller.ts'
import { becomeSubreaper } from '../host/native/process.ts'
import { createImageStore } from '../images/store.ts'
import { joinPort, serverAddress } from '../net/addresses.ts'
import { createZoneFile } from '../net/dns.ts'
import { createFirewall } from '../net/firewall.ts'
import { createLinks } from '../net/links.ts'
import { createNameProbe } from '../net/name-probe.ts'
import { applyNetworkSettings } from '../net/settings.ts'
import { createWireguard } from '../net/wireguard.ts'
import { ensureServerFiles, wireguardDirectory } from '../net/wireguard-files.ts'
import { findEndpoint } from '../peers/endpoint.ts'
import { loadEndpointMemory } from '../peers/endpoint-memory.ts'
import { loadInvitations } from '../peers/invitations.ts'
import { startJoinService } from '../peers/join-service.ts'
import { parsePublicKey } from '../peers/keys.ts'
import { createPeerNetwork } from '../peers/network.ts'
import { createPeerStore } from '../peers/store.ts'
import { functionNameOf } from '../requests/instance.ts'
import { createRequests } from '../requests/requests.ts'
import { createTrafficWatch } from '../requests/traffic.ts'
import { detectBundleHost } from '../runtime/bundle.ts'
import { createCgroups } from '../runtime/cgroups.ts'
import { chooseRuntime } from '../runtime/choose.ts'
import { createFreezer } from '../runtime/freezer.ts'
import { listProcesses } from '../runtime/processes.ts'
import { readUsage, type Usage } from '../runtime/usage.ts'
import { createFunctionLogs } from '../telemetry/function-log.ts'
import type { Log } from '../telemetry/log.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { toFaasError } from '../values/errors.ts'
import type { Config } from './config.ts'
import { createGuard } from './guard.ts'
import { createHealthCheck } from './health.ts'
import { createPlatform } from './platform.ts'

export interface DaemonDeps {
  readonly config: Config
  readonly version: string
  readonly exec: Exec
  readonly clock: Clock
  readonly log: Log
}

/** How long requests in flight have when the daemon stops; instances that take longer go on without it. */
const stopGraceMs = 5_000

/** Descriptors: listeners of ten thousand functions and what watches over their instances. */
const openFiles = 262_144

/** Starts everything; disposing stops it in reverse. Throws what the caller of a failed start should read. */
export async function startDaemon({
  config,
  version,
  exec,
  clock,
  log,
}: DaemonDeps): Promise<AsyncDisposable> {
  const { root, runDirectory, cgroupParent } = config
  await using starting = new AsyncDisposableStack()
  const paths = {
    bundles: join(root, 'bundles'),
    zone: join(root, 'dns', 'faas.db'),
    instances: join(runDirectory, 'i'),
  }
  await makeDirectories(root, runDirectory, paths.bundles, paths.instances)
  starting.use(acquireLock(join(runDirectory, 'lock')))
  becomeSubreaper()
  if (!raiseOpenFiles(openFiles)) log.warn('init', `the limit of open files cannot be raised to ${openFiles}`)
  await applyNetworkSettings()

  const logs = createFunctionLogs()
  const metrics = createMetrics()
  const poller = starting.use(
    createPoller({ onError: (error) => log.error('daemon', `a callback failed: ${String(error)}`) }),
  )
  const reach = readFailpoints(config.failpoints)
  const registry = await openRegistry({ root, log, reach })
  const images = await createImageStore({ root, exec, reach })
  const bundleHost = await detectBundleHost()
  const cgroups = createCgroups({ facts: bundleHost.cgroups, parent: cgroupParent })
  const runtime = await chooseRuntime(config.runtime, {
    exec,
    cgroups,
    host: bundleHost,
    directory: paths.bundles,
    onRefused: ({ message }) => log.info('init', `crun is not used: ${message}`),
  })
  log.info('init', `containers are run by ${await runtime.version()}`)

  const usageOf = (id: string): Promise<Usage> => readUsage(id, cgroupParent, bundleHost.cgroups)
  // Before anything of ours is started: what is found now is of earlier runs.
  const found = (await runtime.list()).filter(({ id }) => functionNameOf(id) !== undefined)
  const requests = createRequests({
    found,
    clock,
    listProcesses: (id) => listProcesses(id, cgroupParent, bundleHost.cgroups),
    poller,
    log,
    logs,
    metrics,
    runtime,
    bundles: paths.bundles,
    runDirectory: paths.instances,
    cgroupParent,
    bundleHost,
    traffic: starting.use(createTrafficWatch({ onError: (error) => log.error('daemon', String(error)) })),
    freezer: createFreezer({ facts: bundleHost.cgroups, parent: cgroupParent }),
    usageOf,
  })
  starting.defer(() => requests.shutdown(stopGraceMs))
  const firewall = createFirewall({ exec })
  const names = createNameProbe({ clock })
  const zone = createZoneFile({ path: paths.zone, servedSerial: () => names.servedSerial() })
  const links = createLinks({ exec })
  const reconciler = createReconciler({
    registry,
    images,
    serving: requests,
    firewall,
    links,
    zone,
    log,
    reach,
  })

  const wireguard = createWireguard({ exec })
  const serverPublicKey = parsePublicKey((await ensureServerFiles()).publicKey)
  const report = (message: string): void => log.warn('peers', message)
  const store = await createPeerStore({
    directory: join(wireguardDirectory, 'peers'),
    serverPublicKey,
    now: () => clock.now(),
    report: ({ path, reason }) => report(`${path}: ${reason}`),
  })
  const invitations = await loadInvitations({ path: join(root, 'invitations.json'), report })
  const peers = starting.use(
    createPeerNetwork({
      store,
      invitations,
      wireguard,
      serverPublicKey,
      endpoints: await loadEndpointMemory(join(root, 'endpoints.json')),
      findEndpoint: () => findEndpoint(config.endpoint, { exec }),
      someFunction: () => registry.content.functions.keys().next().value,
      clock,
      report,
    }),
  )

  // The gate is still shut: no instance of ours is among what is taken over or removed here.
  await reconciler.reconcile()
  const { adopted, removed } = await requests.recover()
  if (adopted + removed > 0) {
    log.info('init', `of an earlier run, ${adopted} instances go on and ${removed} were removed`)
  }
  const guard = starting.use(
    createGuard({ poller, firewall, reconciler, peers, setGate: requests.setGate, log }),
  )
  await guard.check()
  await reconciler.collect().catch((error: unknown) => {
    log.error('init', `what is no longer needed could not be removed: ${toFaasError(error).message}`)
  })

  starting.use(startJoinService({ address: serverAddress, port: joinPort, network: peers, report }))
  const locks = createNameLocks()
  const functions = { registry, images, serving: requests, reconciler, names, clock, reach }
  const changes = { ...functions, locks, release: createRelease(functions) }
  const platform = createPlatform({
    version,
    root,
    registry,
    images,
    requests,
    deploy: createDeploy(changes),
    rollback: createRollback(changes),
    remove: createRemove(changes),
    peers,
    logs,
    metrics,
    usageOf,
    checkHealth: createHealthCheck({ wireguard, names, runtime, guard, root }),
  })
  const api = await createApi({
    platform,
    report: ({ method, path, error }) =>
      log.error('api', `${method} ${path}: ${error.code}: ${error.message}`),
  })
  starting.defer(() => api.close())
  starting.use(
    await listenApi({
      socketPath: join(runDirectory, 'api.sock'),
      socketGid: await findFaasGroup({ exec }),
      handler: (request, response) => api.routing(request, response),
      socketOwner,
      findUser: createFindUser({ exec }),
    }),
  )
  return starting.move()
}

async function makeDirectories(root: string, runDirectory: string, ...inner: string[]): Promise<void> {
  for (const path of [root, runDirectory, ...inner]) {
    await mkdir(path, { recursive: true })
    // Open to be passed through, since roots of containers are reached through them; the umask may have cut it.
    await chmod(path, path === root || path === runDirectory ? 0o755 : 0o711)
  }
}
