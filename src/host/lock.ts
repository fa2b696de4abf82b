/** One daemon a state directory: an exclusive flock(2) that the kernel lets go when the process ends, however it ends. */
import { closeSync, openSync } from 'node:fs'
import { FaasError } from '../values/errors.ts'
import * as libc from './native/libc.ts'

const LOCK_EX_NB = 2 | 4

/** Takes the lock at `path` (made if missing, never removed). Throws ALREADY_RUNNING when someone else holds it. */
export function acquireLock(path: string): Disposable {
  const fd = openSync(path, 'a', 0o600)
  if (libc.flock(fd, LOCK_EX_NB) < 0) {
    closeSync(fd)
    throw new FaasError('ALREADY_RUNNING', `another process holds ${path}`, {
      hint: 'faasd runs already: see `faas status`, or stop it with `faas down`',
    })
  }
  let held = true
  return {
    [Symbol.dispose]() {
      if (held) closeSync(fd)
      held = false
    },
  }
}
