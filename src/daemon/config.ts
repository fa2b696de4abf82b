/**
 * The daemon's configuration: read from the environment once, here, checked, and handed on as a value.
 * Failure: OPTION_INVALID, naming the variable.
 */
import { isAbsolute } from 'node:path'
import type { RuntimeChoice } from '../runtime/choose.ts'
import { FaasError } from '../values/errors.ts'

export interface Config {
  /** `FAAS_ROOT`, default `/var/lib/faasd`: what must survive. */
  readonly root: string
  /** `FAAS_RUN`, default `/run/faasd`: sockets, and what lives as long as the machine runs. */
  readonly runDirectory: string
  /** `FAAS_VPN_ENDPOINT`: where devices reach the server; detected where it is not stated. */
  readonly endpoint: string | undefined
  /** `FAAS_RUNTIME`, default `runc`. */
  readonly runtime: RuntimeChoice
  /** `FAAS_CGROUP_PARENT`, default `faasd`. */
  readonly cgroupParent: string
  /** `FAAS_UPSTREAMS`: name servers for other names, separated by spaces; the guide's two by default. */
  readonly upstreams: readonly string[] | undefined
  /** `FAASD_FP`: failpoints (src/host/failpoints.ts), or `@FILE` with them in a file; for tests. */
  readonly failpoints: string | undefined
}

type Environment = Readonly<Record<string, string | undefined>>

/** Reads and checks the variables above. An empty one counts as unset. */
export function readConfig(environment: Environment): Config {
  const get = (name: string): string | undefined => environment[name]?.trim() || undefined
  const path = (name: string, fallback: string): string => {
    const value = get(name) ?? fallback
    // Overlay options and tools take paths as text: nothing that would need quoting there.
    if (isAbsolute(value) && /^[\w./-]+$/.test(value)) return value.replace(/\/+$/, '')
    throw invalid(name, value, 'an absolute path of letters, digits and ./_-')
  }
  const runtime = get('FAAS_RUNTIME') ?? 'runc'
  if (runtime !== 'runc' && runtime !== 'crun' && runtime !== 'auto') {
    throw invalid('FAAS_RUNTIME', runtime, 'runc, crun or auto')
  }
  return {
    root: path('FAAS_ROOT', '/var/lib/faasd'),
    runDirectory: path('FAAS_RUN', '/run/faasd'),
    endpoint: get('FAAS_VPN_ENDPOINT'),
    runtime,
    cgroupParent: get('FAAS_CGROUP_PARENT') ?? 'faasd',
    upstreams: get('FAAS_UPSTREAMS')?.split(/\s+/),
    failpoints: get('FAASD_FP'),
  }
}

const invalid = (name: string, value: string, wanted: string): FaasError =>
  new FaasError('OPTION_INVALID', `${name} is ${JSON.stringify(value)}, it must be ${wanted}`, {
    hint: `set ${name} right, or unset it for the default`,
  })
