/**
 * crun: one small C program, about three times as fast as runc. Before 1.9 it refuses a hybrid cgroup layout in
 * which the unified hierarchy has a controller; `chooseRuntime('auto')` finds that out by trying.
 */
import { createCommandLineRuntime, type RuntimeDeps } from './command-line.ts'
import type { OciRuntime } from './oci-runtime.ts'

/** Drives crun (1.8 or newer). Everything it touches is handed in. */
export const createCrun = (deps: RuntimeDeps): OciRuntime =>
  createCommandLineRuntime(
    {
      name: 'crun',
      stateRoot: '/run/crun',
      logOptions: (path) => [`--log=file:${path}`, '--log-format=json'],
      gone: /does not exist|error opening file .*status|no such process|not running/i,
    },
    deps,
  )
