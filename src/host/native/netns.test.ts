import assert from 'node:assert/strict'
import { readFileSync, readlinkSync } from 'node:fs'
import { readlink } from 'node:fs/promises'
import { test } from 'node:test'
import { createNetns } from './netns.ts'
import { closeFd, listenTcp, localPort } from './sockets.ts'

const isRoot = process.getuid?.() === 0
const options = { skip: !isRoot && 'needs root (CAP_SYS_ADMIN)' }
const own = (): string => readlinkSync('/proc/thread-self/ns/net')

test('createNetns() makes a network with nothing but lo, and leaves the thread where it was', options, () => {
  const home = own()
  using netns = createNetns()
  assert.equal(own(), home)
  const seen = netns.run(() => ({
    namespace: own(),
    links: readFileSync('/proc/thread-self/net/dev', 'utf8'),
    addresses: readFileSync('/proc/thread-self/net/if_inet6', 'utf8'),
  }))
  assert.notEqual(seen.namespace, home)
  assert.match(seen.links, /^\s*lo:/m)
  assert.match(seen.addresses, /^0{31}1 .* lo\n$/)
  assert.equal(own(), home)
})

test('a socket of the namespace stays in it: the same address is free outside', options, () => {
  using netns = createNetns()
  const inside = netns.run(() => listenTcp({ address: '::1', port: 0, mark: 0, backlog: 1 }))
  const port = localPort(inside)
  const other = createNetns()
  const again = other.run(() => listenTcp({ address: '::1', port, mark: 0, backlog: 1 }))
  other[Symbol.dispose]()
  assert.equal(localPort(again), port)
  closeFd(inside)
  closeFd(again)
})

test('an exception does not leave the thread in the namespace', options, () => {
  const home = own()
  using netns = createNetns()
  assert.throws(
    () =>
      netns.run(() => {
        throw new Error('inside')
      }),
    /inside/,
  )
  assert.equal(own(), home)
  netns[Symbol.dispose]()
  assert.throws(() => netns.run(() => 1), { code: 'SYSCALL_FAILED' })
  assert.equal(own(), home)
})

test('threads of the pool stay outside while the main thread is inside', options, async () => {
  const home = own()
  using netns = createNetns()
  const started = netns.run(() => ({ link: readlink('/proc/thread-self/ns/net') }))
  assert.equal(await started.link, home)
})
