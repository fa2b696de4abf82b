/**
 * Failures that a caller can act on. A code is API: added, never renamed. `status` is the HTTP answer,
 * `fault` says who can mend it: the caller (`user`), whoever runs the server (`operator`), or we (`system`).
 * docs/errors.md lists them; a test holds the two together.
 */
export const errorCodes = {
  // the caller's input
  NAME_INVALID: { status: 400, fault: 'user' },
  NAME_RESERVED: { status: 409, fault: 'user' },
  OPTION_INVALID: { status: 400, fault: 'user' },
  REQUEST_INVALID: { status: 400, fault: 'user' },
  NOT_FOUND: { status: 404, fault: 'user' },
  METHOD_NOT_ALLOWED: { status: 405, fault: 'user' },
  // who may call
  HOST_REFUSED: { status: 403, fault: 'user' },
  ORIGIN_REFUSED: { status: 403, fault: 'user' },
  CALLER_REFUSED: { status: 403, fault: 'user' },
  // functions
  FUNCTION_UNKNOWN: { status: 404, fault: 'user' },
  FUNCTION_BUSY: { status: 409, fault: 'user' },
  FUNCTION_NOT_PROVEN: { status: 422, fault: 'user' },
  VERSION_UNKNOWN: { status: 404, fault: 'user' },
  // images
  ARCHIVE_INVALID: { status: 400, fault: 'user' },
  ARCHIVE_TRUNCATED: { status: 400, fault: 'user' },
  IMAGE_AMBIGUOUS: { status: 400, fault: 'user' },
  IMAGE_CONFIG_INVALID: { status: 400, fault: 'user' },
  IMAGE_DIGEST_MISMATCH: { status: 400, fault: 'user' },
  IMAGE_LAYER_INVALID: { status: 400, fault: 'user' },
  IMAGE_ROOTFS_REFUSED: { status: 400, fault: 'user' },
  IMAGE_PLATFORM_UNSUPPORTED: { status: 400, fault: 'user' },
  IMAGE_TOO_LARGE: { status: 413, fault: 'user' },
  // peers
  PEER_UNKNOWN: { status: 404, fault: 'user' },
  PEER_EXISTS: { status: 409, fault: 'user' },
  PEER_KEY_INVALID: { status: 400, fault: 'user' },
  PEER_KEY_TAKEN: { status: 409, fault: 'user' },
  INVITATION_INVALID: { status: 403, fault: 'user' },
  ENDPOINT_UNKNOWN: { status: 409, fault: 'operator' },
  // a device joining the network
  INVITATION_CODE_INVALID: { status: 400, fault: 'user' },
  VPN_CONFIG_INVALID: { status: 409, fault: 'user' },
  VPN_CONNECTED: { status: 409, fault: 'user' },
  VPN_NOT_CONNECTED: { status: 409, fault: 'user' },
  VPN_UNREACHABLE: { status: 504, fault: 'operator' },
  // the machine
  ADDRESS_POOL_EMPTY: { status: 507, fault: 'operator' },
  DISK_FULL: { status: 507, fault: 'operator' },
  FIREWALL_NOT_IN_PLACE: { status: 503, fault: 'operator' },
  NOT_READY: { status: 503, fault: 'operator' },
  ALREADY_RUNNING: { status: 503, fault: 'operator' },
  NOT_RUNNING: { status: 503, fault: 'operator' },
  NOT_ROOT: { status: 403, fault: 'user' },
  PROGRAM_MISSING: { status: 503, fault: 'operator' },
  WIREGUARD_CONFIG_REFUSED: { status: 500, fault: 'operator' },
  REGISTRY_CORRUPT: { status: 500, fault: 'operator' },
  STATE_TOO_NEW: { status: 500, fault: 'operator' },
  DAEMON_UNREACHABLE: { status: 503, fault: 'operator' },
  // ours
  COMMAND_FAILED: { status: 500, fault: 'system' },
  COMMAND_TIMEOUT: { status: 504, fault: 'system' },
  SYSCALL_FAILED: { status: 500, fault: 'system' },
  RUNTIME_FAILED: { status: 500, fault: 'system' },
  DNS_TIMEOUT: { status: 504, fault: 'system' },
  INTERNAL: { status: 500, fault: 'system' },
} as const satisfies Record<string, { status: number; fault: 'user' | 'operator' | 'system' }>

export type ErrorCode = keyof typeof errorCodes

export interface FaasErrorOptions {
  /** What to do next, in one sentence. */
  readonly hint?: string
  readonly cause?: unknown
}

/** A failure with a stable {@link ErrorCode}, a message (expected and got) and, where one is known, a hint. */
export class FaasError extends Error {
  readonly code: ErrorCode
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, options: FaasErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'FaasError'
    this.code = code
    this.hint = options.hint
  }

  get status(): number {
    return errorCodes[this.code].status
  }
}

/** Any thrown value as a {@link FaasError}: what is not one becomes `INTERNAL` with the original as its cause. */
export function toFaasError(thrown: unknown): FaasError {
  if (thrown instanceof FaasError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new FaasError('INTERNAL', message, { cause: thrown })
}
