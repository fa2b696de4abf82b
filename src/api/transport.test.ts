import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createTransport, renderSshArguments } from './transport.ts'

test('renderSshArguments() keeps host, user and port apart, and runs dial-stdio', () => {
  for (const [url, expected] of [
    ['ssh://server', '-T -o ConnectTimeout=15 -- server faas dial-stdio'],
    [
      'ssh://root@server.example.com:2222/',
      '-T -o ConnectTimeout=15 -p 2222 -- root@server.example.com faas dial-stdio',
    ],
    ['ssh://me@[fd00::1]', '-T -o ConnectTimeout=15 -- me@fd00::1 faas dial-stdio'],
  ] as const) {
    assert.equal(renderSshArguments(new URL(url)).join(' '), expected)
  }
})

for (const host of [
  'ssh://-oProxyCommand=id',
  'ssh://-x@server',
  'ssh://user@-server',
  'ssh://us%20er@server',
  'ssh://user:secret@server',
  'ssh://server/path',
  'ssh://server?x',
  'ssh://',
  'server',
  'http://evil.com:8080',
  'https://localhost:8080',
  'unix://relative',
]) {
  test(`createTransport() refuses FAAS_HOST=${host}`, () => {
    assert.throws(() => createTransport(host), { code: 'OPTION_INVALID' })
  })
}
