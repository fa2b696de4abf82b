/**
 * Names from outside become checked types here, once; the inside never checks again.
 * A name is a DNS label as Kubernetes has it (RFC 1123, lower case): it becomes a host name, a directory
 * and part of a container id, so nothing else is let through.
 */
import { FaasError } from './errors.ts'

declare const checked: unique symbol

/** A DNS label of 1 to 63 characters; made only by {@link parseFunctionName}. */
export type FunctionName = string & { readonly [checked]: 'function name' }
/** A DNS label of 1 to 63 characters; made only by {@link parsePeerName}. */
export type PeerName = string & { readonly [checked]: 'peer name' }

const label = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
const maxLabelLength = 63

/** Names that the zone, mail, or a browser's own look-ups give another meaning. */
const reservedFunctionNames: ReadonlySet<string> = new Set([
  'admin',
  'api',
  'dns',
  'hostmaster',
  'isatap',
  'localhost',
  'ns',
  'vpn',
  'wpad',
])

function checkLabel(text: unknown, what: string): string {
  if (typeof text === 'string' && text.length <= maxLabelLength && label.test(text)) return text
  const shown = typeof text === 'string' ? JSON.stringify(text.slice(0, 80)) : 'nothing'
  throw new FaasError('NAME_INVALID', `${what} must be a DNS label, got ${shown}`, {
    hint: `use 1 to ${maxLabelLength} of a-z, 0-9 and "-", with a letter or digit first and last`,
  })
}

/**
 * Checks a function's name. Throws NAME_INVALID, or NAME_RESERVED for labels with a meaning of their own
 * (and for `@` and `*`, which zone files give one).
 */
export function parseFunctionName(text: unknown): FunctionName {
  if (text === '@' || text === '*' || (typeof text === 'string' && reservedFunctionNames.has(text))) {
    throw new FaasError('NAME_RESERVED', `the name ${JSON.stringify(text)} is reserved`, {
      hint: 'choose another name',
    })
  }
  return checkLabel(text, 'a function name') as FunctionName
}

/** Checks a peer's name. Throws NAME_INVALID. */
export function parsePeerName(text: unknown): PeerName {
  return checkLabel(text, 'a peer name') as PeerName
}
