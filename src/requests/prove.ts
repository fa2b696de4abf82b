/**
 * Shows that a version works before it takes any connection: an instance of it connects to its control socket, or
 * listens on its ports. There it gets listeners that nobody can reach, so that no caller meets an unproven version.
 * Where the contract was not stated, the instance is offered both, and the one that it takes is the image's.
 */
import { controlSocketDestination, openControlSocket } from '../contracts/fd.ts'
import { superviseInstance } from '../contracts/listen.ts'
import type { ContractName, ServedFunction } from '../functions/function.ts'
import type { ExitStatus } from '../host/native/process.ts'
import { closeFd, listenTcp } from '../host/native/sockets.ts'
import { passedSocketMark } from '../net/addresses.ts'
import { FaasError } from '../values/errors.ts'
import { type Attachment, type Instance, type InstanceDeps, startInstance } from './instance.ts'

const shownLines = 5

/** What the instance did meanwhile. */
interface Trial {
  shown: ContractName | undefined
  /** Other ports that it listens on, for the hint. */
  readonly otherPorts: Set<number>
}

/**
 * Starts one instance of `fn` and ends it as soon as it has shown one of `contracts`, which is the answer. Throws
 * FUNCTION_NOT_PROVEN, with the last lines that it printed, when it ends before or takes longer than its `connectMs`;
 * RUNTIME_FAILED when it cannot be started. Nothing of the instance is left either way.
 */
export async function proveFunction(
  fn: ServedFunction,
  contracts: readonly ContractName[],
  deps: InstanceDeps,
  signal: AbortSignal,
): Promise<ContractName> {
  signal.throwIfAborted()
  const { connectMs } = fn.options.timeouts
  const trial: Trial = { shown: undefined, otherPorts: new Set() }
  let instance: Instance | undefined
  let late = false
  const stop = (): void => {
    late = trial.shown === undefined
    instance?.kill()
  }
  const timer = setTimeout(stop, connectMs)
  signal.addEventListener('abort', stop, { once: true })
  try {
    const onShown = (contract: ContractName): void => {
      trial.shown ??= contract
      instance?.kill()
    }
    // The profile of `listen` allows all that `fd` needs.
    const tried: ServedFunction = { ...fn, contract: contracts.includes('listen') ? 'listen' : 'fd' }
    const attach = (directory: string): Attachment =>
      attachTrial(tried, contracts, directory, trial, onShown, deps)
    instance = await startInstance(tried, attach, deps)
    if (trial.shown || late) instance.kill()
    const status = await instance.ended
    signal.throwIfAborted()
    if (trial.shown) return trial.shown
    throw notProven(fn, contracts, trial, instance.id, late ? undefined : { status }, deps)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', stop)
  }
}

function attachTrial(
  fn: ServedFunction,
  contracts: readonly ContractName[],
  directory: string,
  trial: Trial,
  onShown: (contract: ContractName) => void,
  deps: InstanceDeps,
): Attachment {
  using undo = new DisposableStack()
  const control = contracts.includes('fd')
    ? undo.use(
        openControlSocket(directory, fn.user, deps.poller, (handler) => {
          using _closed = handler
          onShown('fd')
        }),
      )
    : undefined
  const supervision = contracts.includes('listen')
    ? undo.use(superviseTrial(fn, directory, trial, () => onShown('listen'), deps))
    : undefined
  const kept = undo.move()
  return {
    mounts: control?.mounts ?? [],
    ...(supervision ? { seccompListener: supervision.path } : {}),
    [Symbol.dispose]: () => kept.dispose(),
  }
}

function superviseTrial(
  fn: ServedFunction,
  directory: string,
  trial: Trial,
  onShown: () => void,
  { poller, log }: InstanceDeps,
): { readonly path: string } & Disposable {
  using undo = new DisposableStack()
  // The packet filter lets nothing marked leave from these, so nobody can connect.
  const scratch = (): number =>
    undo.adopt(listenTcp({ address: '::1', port: 0, mark: passedSocketMark, backlog: 1 }), closeFd)
  const listeners = new Map(fn.ports.map(({ target }) => [target, scratch()]))
  const missing = new Set(listeners.keys())
  const options = {
    directory,
    listeners,
    onListening(port: number) {
      missing.delete(port)
      if (missing.size === 0) onShown()
    },
    onOtherPort: (port: number) => void trial.otherPorts.add(port),
    onTrouble: (message: string) => log.warn(fn.name, message),
  }
  const { path } = undo.use(superviseInstance(options, poller))
  const kept = undo.move()
  return { path, [Symbol.dispose]: () => kept.dispose() }
}

function notProven(
  fn: ServedFunction,
  contracts: readonly ContractName[],
  trial: Trial,
  id: string,
  end: { readonly status: ExitStatus | undefined } | undefined,
  deps: InstanceDeps,
): FaasError {
  const ports = fn.ports.map(({ target }) => target).join(' and ')
  const wanted = { fd: `connect to ${controlSocketDestination}`, listen: `listen on port ${ports}` }
  const did = contracts.map((contract) => wanted[contract]).join(' or ')
  const ending = end
    ? `${endingOf(end.status)} and did not ${did}`
    : `did not ${did} within ${fn.options.timeouts.connectMs} ms`
  const printed = deps.logs.tail(fn.name, 1000).filter((entry) => entry.instance === id)
  const words = printed.slice(-shownLines).map(({ text }) => text)
  const last = words.length === 0 ? 'it printed nothing' : `its last lines: ${words.join(' | ')}`
  const [other] = trial.otherPorts
  const hint =
    other === undefined
      ? `an image must ${did}: see docs/contracts.md`
      : `it listens on port ${other}: deploy it with --port ${other}`
  return new FaasError('FUNCTION_NOT_PROVEN', `an instance of ${fn.name} ${ending}; ${last}`, { hint })
}

function endingOf(status: ExitStatus | undefined): string {
  if (status?.code !== undefined) return `ended with exit code ${status.code}`
  return status?.signal === undefined ? 'ended' : `was ended by signal ${status.signal}`
}
