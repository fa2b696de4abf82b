/** How `faas` ends, for scripts: one table, printed by `faas --help` and held to docs/cli.md by a test. */
import type { ErrorCode } from '../values/errors.ts'

export const exitCodes = {
  ok: { code: 0, meaning: 'done' },
  failed: { code: 1, meaning: 'it failed; the message says why' },
  usage: { code: 2, meaning: 'the command line is wrong: an option, an argument, a name' },
  notFound: { code: 3, meaning: 'there is no such function, version or device' },
  refused: { code: 4, meaning: 'not allowed: no permission, or a code that is not valid' },
  unreachable: { code: 5, meaning: 'faasd cannot be reached' },
  interrupted: { code: 130, meaning: 'ended by Ctrl-C' },
} as const satisfies Record<string, { code: number; meaning: string }>

const byError: Partial<Record<ErrorCode, keyof typeof exitCodes>> = {
  NAME_INVALID: 'usage',
  NAME_RESERVED: 'usage',
  OPTION_INVALID: 'usage',
  INVITATION_CODE_INVALID: 'usage',
  NOT_FOUND: 'notFound',
  FUNCTION_UNKNOWN: 'notFound',
  VERSION_UNKNOWN: 'notFound',
  PEER_UNKNOWN: 'notFound',
  HOST_REFUSED: 'refused',
  ORIGIN_REFUSED: 'refused',
  CALLER_REFUSED: 'refused',
  NOT_ROOT: 'refused',
  NOT_RUNNING: 'unreachable',
  INVITATION_INVALID: 'refused',
  DAEMON_UNREACHABLE: 'unreachable',
  VPN_UNREACHABLE: 'unreachable',
}

export const exitCodeOf = (code: ErrorCode): number => exitCodes[byError[code] ?? 'failed'].code

export const renderExitCodes = (): string =>
  [
    'Exit codes:',
    ...Object.values(exitCodes).map(({ code, meaning }) => `  ${String(code).padEnd(5)}${meaning}`),
  ].join('\n')
