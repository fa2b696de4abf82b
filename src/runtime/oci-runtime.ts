/**
 * Starts, signals and removes containers. One interface for every OCI runtime; what differs is in runc.ts and
 * crun.ts, and test/runtime holds both to the same cases.
 */
export interface ContainerState {
  readonly id: string
  /** The init's pid as the host sees it; 0 when it has ended. */
  readonly pid: number
  /** `creating`, `created`, `running`, `paused` or `stopped` (OCI runtime spec 1.0.2, "State"); `broken` where a start was cut off. */
  readonly status: string
  readonly bundle: string
}

export interface RunOptions {
  readonly id: string
  /** The directory with `config.json`. The runtime's log and the pid file are written there too. */
  readonly bundle: string
  /** Descriptors that become the container's stdout and stderr. The caller keeps owning its copies. */
  readonly stdout: number
  readonly stderr: number
  /** An abort kills what has been started and removes it; `run` then throws RUNTIME_FAILED with the reason as cause. */
  readonly signal?: AbortSignal
  /** Default 30,000. */
  readonly timeoutMs?: number
}

export interface OciRuntime {
  readonly name: 'runc' | 'crun'
  /** The first line of `--version`. Throws PROGRAM_MISSING. */
  version(): Promise<string>
  /**
   * Starts a detached container and answers the pid of its init, which becomes a child of the nearest subreaper.
   * Throws RUNTIME_FAILED with the runtime's own last words, PROGRAM_MISSING; nothing is left then.
   */
  run(options: RunOptions): Promise<{ readonly pid: number }>
  /** Sends a signal to the init. One that has ended, or never was, is no error. */
  kill(id: string, signal: NodeJS.Signals): Promise<void>
  /** Ends and removes a container: processes, cgroups, state. Idempotent, also for what a cut-off start left. */
  delete(id: string): Promise<void>
  /** Every container below this runtime's state root, also those that we did not start. */
  list(): Promise<readonly ContainerState[]>
}
