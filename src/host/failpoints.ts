/**
 * Places at which a test lets the program die, fail or wait. What happens where is said in the form of containerd's
 * failpoints: `D7:1*off->1*kill` lets the first passage of D7 go by, ends the process at the second, and lets all
 * further ones go by. Several places are separated by `;`.
 *
 *   off            nothing                    error(CODE)   an error with this `code`, ENOSPC for one
 *   kill           SIGKILL to this process    delay(MS)     waits
 *
 * A term without a count holds for ever. Failure: OPTION_INVALID, for a text of another form.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { FaasError } from '../values/errors.ts'

/** Called when the step of that name has been done. Costs nothing where no failpoint is set. */
export type Reach = (point: string) => Promise<void> | void

/** Without failpoints. */
export const reachNothing: Reach = () => {}

interface Term {
  left: number
  readonly act: (point: string) => Promise<void> | void
}

/** Failpoints as the environment has them: their text, `@FILE` for a file that holds it, or none. */
export function readFailpoints(text: string | undefined): Reach {
  const content = text?.startsWith('@') ? readFileSync(text.slice(1), 'utf8').trim() : text
  return content ? parseFailpoints(content) : reachNothing
}

/** Reads the form above. */
export function parseFailpoints(text: string): Reach {
  const points = new Map<string, readonly Term[]>()
  for (const part of text.split(';')) {
    const [, point, terms] = /^\s*([A-Za-z0-9_]+):(.+?)\s*$/.exec(part) ?? []
    if (point === undefined || terms === undefined) throw invalid(part)
    points.set(point, terms.split('->').map(parseTerm))
  }
  return (point) => {
    const term = points.get(point)?.find(({ left }) => left > 0)
    if (!term) return
    term.left--
    return term.act(point)
  }
}

function parseTerm(text: string): Term {
  const [, count, kind, argument = ''] = /^\s*(?:(\d+)\*)?([a-z]+)(?:\((\w+)\))?\s*$/.exec(text) ?? []
  const left = count === undefined ? Number.POSITIVE_INFINITY : Number(count)
  switch (kind) {
    case 'off':
      return { left, act: () => {} }
    case 'kill':
      return { left, act: () => void process.kill(process.pid, 'SIGKILL') }
    case 'error':
      return {
        left,
        act(point) {
          throw Object.assign(new Error(`failpoint ${point}: ${argument}`), { code: argument })
        },
      }
    case 'delay':
      return { left, act: () => delay(Number(argument)) }
    default:
      throw invalid(text)
  }
}

const invalid = (text: string): FaasError =>
  new FaasError('OPTION_INVALID', `${JSON.stringify(text)} is no failpoint`, {
    hint: 'the form is POINT:COUNT*ACTION->…, with off, kill, error(CODE) or delay(MS)',
  })
