/** How a failure looks: what happened, what to do, and the code that docs/errors.md explains. */
import type { FaasError } from '../values/errors.ts'
import type { CliContext } from './context.ts'
import { paint } from './text.ts'

export function printFailure(
  { stderr, env }: Pick<CliContext, 'stderr' | 'env'>,
  { message, hint, code }: FaasError,
): void {
  stderr.write(
    `${paint(stderr, env, 'red', 'error:')} ${message} ${paint(stderr, env, 'dim', `(${code})`)}\n`,
  )
  if (hint !== undefined) stderr.write(`${paint(stderr, env, 'yellow', 'hint:')} ${hint}\n`)
}
