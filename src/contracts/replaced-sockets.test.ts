import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as libc from '../host/native/libc.ts'
import { duplicateFd, isSameSocket } from '../host/native/socket-facts.ts'
import { closeFd, localPort } from '../host/native/sockets.ts'
import { createReplacedSockets, isListener } from './replaced-sockets.ts'

const any4 = (port: number): Buffer => {
  const address = Buffer.alloc(16)
  address.writeUInt16LE(2, 0)
  address.writeUInt16BE(port, 2)
  return address
}
const socket = { process: 1, target: 5, family: 4, port: 80, address: any4(0) } as const

/** An IPv4 stream socket that is not bound; the test's own end closes it. */
const scratch = (undo: DisposableStack): number => undo.adopt(Number(libc.socket(2, 1, 0)), closeFd)

test('giveBack() puts a process’s IPv4 sockets of the port back once, bound and listening, and no others', () => {
  using undo = new DisposableStack()
  using replaced = createReplacedSockets()
  const own = scratch(undo)
  replaced.add(socket, own)
  replaced.listening(1, 5, 16)
  replaced.add({ ...socket, process: 2, target: 6 }, scratch(undo))
  replaced.add({ ...socket, port: 81, target: 7 }, scratch(undo))
  replaced.add({ ...socket, family: 6, target: 8 }, scratch(undo))
  const back: number[] = []
  const give = (isHeld: boolean) =>
    replaced.giveBack(
      1,
      80,
      () => isHeld,
      (fd, target) => {
        assert.ok(isSameSocket(fd, own))
        back.push(target)
      },
    )
  give(true)
  give(true)
  assert.deepEqual(back, [5])
  assert.notEqual(localPort(own), 0)
  assert.equal(
    replaced.holds(1, 80, 4, () => true),
    false,
  )
  assert.equal(
    replaced.holds(2, 80, 4, () => true),
    true,
  )
  assert.equal(
    replaced.holds(1, 81, 4, () => true),
    true,
  )
  assert.equal(
    replaced.holds(1, 80, 6, () => true),
    true,
  )
  assert.equal(
    replaced.holds(1, 80, 6, () => false),
    false,
  )
})

test('isListener() tells the listener from another socket and from a descriptor that is not there', () => {
  using undo = new DisposableStack()
  const [listener, other] = [scratch(undo), scratch(undo)]
  const descriptors = new Map([
    [3, listener],
    [4, other],
  ])
  const take = (target: number) => {
    const fd = descriptors.get(target)
    return fd === undefined ? undefined : duplicateFd(fd)
  }
  const isHeld = isListener(listener, take)
  assert.deepEqual([3, 4, 5].map(isHeld), [true, false, false])
})
