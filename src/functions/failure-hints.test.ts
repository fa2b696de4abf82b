import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultLimits } from '../runtime/container.ts'
import { hintFromOutput } from './failure-hints.ts'
import { defaultTimeouts, type FunctionOptions, type ServedFunction } from './function.ts'

const options = (writable: boolean): FunctionOptions => ({
  limits: defaultLimits,
  timeouts: defaultTimeouts,
  maxInstances: 1,
  minInstances: 0,
  writable,
  env: [],
})
type Tried = Pick<ServedFunction, 'contract' | 'user' | 'options'>
const as = (uid: number, contract: 'fd' | 'listen' = 'listen', writable = false): Tried => ({
  contract,
  user: { uid, gid: uid, additionalGids: [] },
  options: options(writable),
})
const root = as(0)

const readOnly: readonly string[] = [
  'nginx: [emerg] mkdir() "/var/lib/nginx/body" failed (30: Read-only file system)',
  "OSError: [Errno 30] Read-only file system: '/app/state'",
  "Error: EROFS: read-only file system, open '/app/x'",
  'open /data/x: read-only file system',
  'java.nio.file.ReadOnlyFileSystemException',
]
for (const line of readOnly) {
  test(`a read-only root is helped by --writable: ${line.slice(0, 50)}`, () =>
    assert.match(hintFromOutput(['starting', line, 'exiting'], root) ?? '', /--writable/))
}

test('with --writable a read-only file is none of the image, and no option is named', () => {
  assert.doesNotMatch(hintFromOutput(readOnly.slice(0, 1), as(0, 'listen', true)) ?? '', /--/)
})

test('a refused right is helped by USER, each user by another word of it', () => {
  const chown = ['chown: /data: Operation not permitted']
  assert.match(hintFromOutput(chown, as(1000)) ?? '', /drop USER/)
  assert.match(hintFromOutput(chown, as(0, 'fd')) ?? '', /fd contract: set USER/)
  assert.match(hintFromOutput(chown, root) ?? '', /set USER/)
  const open = ["PermissionError: [Errno 13] Permission denied: '/app/log'"]
  assert.match(hintFromOutput(open, as(1000)) ?? '', /COPY --chown/)
  assert.match(hintFromOutput(open, as(0, 'fd')) ?? '', /set USER/)
})

test('a full directory is helped by the option of its size', () => {
  const full = ['write error: No space left on device']
  assert.match(hintFromOutput(full, root) ?? '', /--tmp/)
  assert.match(hintFromOutput(full, as(0, 'listen', true)) ?? '', /--memory/)
})

test('the last complaint counts, and other lines say nothing', () => {
  const lines = ['warning: Permission denied', 'fatal: Read-only file system', 'errno 130', 'bye']
  assert.match(hintFromOutput(lines, root) ?? '', /--writable/)
  assert.equal(hintFromOutput(['listening', 'errno 130', 'EPERMIT', 'SyntaxError'], root), undefined)
  assert.equal(hintFromOutput([], root), undefined)
})
