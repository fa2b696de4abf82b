import assert from 'node:assert/strict'
import { test } from 'node:test'
import { harmless, renderArgv, renderBytes, renderTable } from './text.ts'

test('renderBytes() uses binary units', () => {
  assert.deepEqual([0, 1023, 1024, 1536, 512 * 2 ** 20, 3.3 * 2 ** 30, 2 ** 50].map(renderBytes), [
    '0 B',
    '1023 B',
    '1 KiB',
    '1.5 KiB',
    '512 MiB',
    '3.3 GiB',
    '1024 TiB',
  ])
})

test('renderTable() aligns columns and leaves nothing trailing', () => {
  assert.equal(renderTable(['A', 'LONG'], [['abc', '']]), 'A    LONG\nabc')
})

test('renderArgv() quotes what a shell would split', () => {
  assert.equal(renderArgv(['sh', '-c', "echo 'a b'", '']), `sh -c 'echo '\\''a b'\\''' ''`)
})

test('harmless() shows control characters, and leaves tabs and letters alone', () => {
  assert.equal(harmless('a\x1b[0m\tü\x07\x9b\n'), 'a\\x1b[0m\tü\\x07\\x9b\\x0a')
})
