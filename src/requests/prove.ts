/**
 * Shows that a version works before it takes any connection: an instance of it connects to its control socket, or
 * listens on its ports, and answers its health check where it has one. It is tried in a network of its own
 * (trial-network.ts), so that no caller meets an unproven version. Where the contract was not stated, the instance is
 * offered both, and the one that it takes is the image's.
 */
import { controlSocketDestination, openControlSocket, type WaitingHandler } from '../contracts/fd.ts'
import { superviseInstance } from '../contracts/listen.ts'
import { hintFromOutput } from '../functions/failure-hints.ts'
import type { ContractName, ServedFunction } from '../functions/function.ts'
import type { ExitStatus } from '../host/native/process.ts'
import { FaasError } from '../values/errors.ts'
import { askHealth, askUntilHealthy, type HealthAnswer, type HealthQuestion } from './health-check.ts'
import { type Attachment, type Instance, type InstanceDeps, startInstance } from './instance.ts'
import { type ConnectedPair, createTrialNetwork, type TrialNetwork } from './trial-network.ts'

const shownLines = 5

/** What the instance did meanwhile. */
interface Trial {
  readonly fn: ServedFunction
  readonly contracts: readonly ContractName[]
  readonly network: TrialNetwork
  /** Aborts when nothing more is expected of the instance: then it is ended. */
  readonly over: AbortController
  shown: ContractName | undefined
  /** The check of what was shown; undefined without one. Never rejects. */
  health: Promise<HealthAnswer> | undefined
  /** Other ports that it listens on, for the hint. */
  readonly otherPorts: Set<number>
}

/**
 * Starts one instance of `fn` and ends it as soon as it has shown one of `contracts`, which is the answer. Throws
 * FUNCTION_NOT_PROVEN, with the last lines that it printed, when it ends before, takes longer than its `connectMs`, or
 * does not answer its health check within that time; RUNTIME_FAILED when it cannot be started. Nothing of the instance
 * is left either way.
 */
export async function proveFunction(
  fn: ServedFunction,
  contracts: readonly ContractName[],
  deps: InstanceDeps,
  signal: AbortSignal,
): Promise<ContractName> {
  signal.throwIfAborted()
  using network = createTrialNetwork(fn.ports)
  const over = new AbortController()
  const trial: Trial = {
    fn,
    contracts,
    network,
    over,
    shown: undefined,
    health: undefined,
    otherPorts: new Set(),
  }
  const stop = (): void => over.abort()
  const timer = setTimeout(stop, fn.options.timeouts.connectMs)
  signal.addEventListener('abort', stop, { once: true })
  try {
    using pair = fn.options.health === undefined ? undefined : await network.connectedPair(deps.poller)
    // The profile of `listen` allows all that `fd` needs.
    const tried: ServedFunction = { ...fn, contract: contracts.includes('listen') ? 'listen' : 'fd' }
    const attach = (directory: string): Attachment => attachTrial(trial, directory, pair, deps)
    const instance = await startInstance(tried, attach, deps)
    const end = await untilEnded(instance, over.signal)
    // What an instance of `fd` wrote before it ended is still to be read; a server that has ended says nothing more.
    if (trial.shown !== 'fd') stop()
    const answer = await trial.health
    signal.throwIfAborted()
    if (trial.shown && (answer?.healthy ?? true)) return trial.shown
    throw notProven(trial, instance.id, { end, answer }, deps)
  } finally {
    clearTimeout(timer)
    stop()
    signal.removeEventListener('abort', stop)
  }
}

/** Ends the instance when the signal aborts. Answers how it ended, or undefined where it was we who ended it. */
async function untilEnded(
  instance: Instance,
  signal: AbortSignal,
): Promise<{ readonly status: ExitStatus | undefined } | undefined> {
  let ended = false
  const end = (): void => {
    ended = true
    instance.kill()
  }
  if (signal.aborted) end()
  else signal.addEventListener('abort', end, { once: true })
  const status = await instance.ended
  signal.removeEventListener('abort', end)
  return ended ? undefined : { status }
}

/** The first contract that the instance takes up is the one; `ask` is its health check. */
function onShown(
  trial: Trial,
  contract: ContractName,
  ask: (question: HealthQuestion) => Promise<HealthAnswer>,
) {
  if (trial.shown !== undefined) return
  trial.shown = contract
  const { over, fn } = trial
  const { health: path } = fn.options
  if (path === undefined) return over.abort()
  trial.health = ask({ host: `${fn.name}.faas`, path, signal: over.signal })
  void trial.health.then(() => over.abort())
}

function attachTrial(
  trial: Trial,
  directory: string,
  pair: ConnectedPair | undefined,
  { poller, log }: InstanceDeps,
): Attachment {
  const { fn, contracts, network } = trial
  using undo = new DisposableStack()
  const onConnect = (handler: WaitingHandler): void => {
    using waiting = handler
    onShown(trial, 'fd', async (question) => {
      if (!pair || !waiting.handOver(pair.accepted)) return { healthy: false, words: 'took no connection' }
      pair.closeAccepted()
      return askHealth(pair.takeCaller(), question)
    })
  }
  const control = contracts.includes('fd')
    ? undo.use(openControlSocket(directory, fn.user, poller, onConnect))
    : undefined
  const missing = new Set(network.listeners.keys())
  const [first] = fn.ports
  const supervision = contracts.includes('listen')
    ? undo.use(
        superviseInstance(
          {
            directory,
            listeners: network.listeners,
            onListening(port) {
              missing.delete(port)
              if (missing.size > 0) return
              onShown(trial, 'listen', (question) =>
                askUntilHealthy(() => network.connect(first?.port ?? 0), question),
              )
            },
            onOtherPort: (port) => void trial.otherPorts.add(port),
            // Its listeners lead nowhere.
            mayPass: () => true,
            onTrouble: (message) => log.warn(fn.name, message),
          },
          poller,
        ),
      )
    : undefined
  const kept = undo.move()
  return {
    mounts: control?.mounts ?? [],
    ...(supervision ? { seccompListener: supervision.path } : {}),
    [Symbol.dispose]: () => kept.dispose(),
  }
}

interface Outcome {
  readonly end: { readonly status: ExitStatus | undefined } | undefined
  readonly answer: HealthAnswer | undefined
}

function notProven(trial: Trial, id: string, { end, answer }: Outcome, deps: InstanceDeps): FaasError {
  const { fn, contracts, shown, otherPorts } = trial
  const ports = fn.ports.map(({ target }) => target).join(' and ')
  const wanted = { fd: `connect to ${controlSocketDestination}`, listen: `listen on port ${ports}` }
  const did = contracts.map((contract) => wanted[contract]).join(' or ')
  const ending = end ? endingOf(end.status) : undefined
  const limit = `within ${fn.options.timeouts.connectMs} ms`
  const { health } = fn.options
  const failure =
    shown === undefined
      ? `${ending === undefined ? '' : `${ending} and `}did not ${did}${ending === undefined ? ` ${limit}` : ''}`
      : `did ${wanted[shown]}, but when asked for ${health} it ${answer?.words}${ending ? `, and ${ending}` : ''}`
  const printed = deps.logs.tail(fn.name, 1000).filter((entry) => entry.instance === id)
  const words = printed.slice(-shownLines).map(({ text }) => text)
  const last = words.length === 0 ? 'it printed nothing' : `its last lines: ${words.join(' | ')}`
  const [other] = otherPorts
  const hint =
    hintFromOutput(words, fn) ??
    (shown !== undefined
      ? `GET ${health} must be answered with 2xx ${limit}: see --health and --connect-timeout in docs/contracts.md`
      : other === undefined
        ? `an image must ${did}: see docs/contracts.md`
        : `it listens on port ${other}: deploy it with --port ${other}`)
  return new FaasError('FUNCTION_NOT_PROVEN', `an instance of ${fn.name} ${failure}; ${last}`, { hint })
}

function endingOf(status: ExitStatus | undefined): string {
  if (status?.code !== undefined) return `ended with exit code ${status.code}`
  return status?.signal === undefined ? 'ended' : `was ended by signal ${status.signal}`
}
