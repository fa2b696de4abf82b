/** runc, the default runtime. Its state lies in /run/runc, so that the guide's `runc list` shows the instances. */
import { createCommandLineRuntime, type RuntimeDeps } from './command-line.ts'
import type { OciRuntime } from './oci-runtime.ts'

/** Drives runc (1.1 or newer). Everything it touches is handed in. */
export const createRunc = (deps: RuntimeDeps): OciRuntime =>
  createCommandLineRuntime(
    {
      name: 'runc',
      stateRoot: '/run/runc',
      logOptions: (path) => ['--log', path, '--log-format', 'json'],
      gone: /container does not exist|container not running|process already finished/,
    },
    deps,
  )
