import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { acquireLock } from '../lock.ts'
import { drainNetlink, openLinkMonitor, socketOwner } from './netlink.ts'
import { createPoller } from './poller.ts'
import { becomeSubreaper, pidfdOpen, pidfdSignal, reapOrphans, reapPidfd } from './process.ts'
import {
  acceptTcp,
  acceptUnix,
  closeFd,
  listenTcp,
  listenUnix,
  localPort,
  peerCredentials,
  resetTcp,
  sendDescriptor,
} from './sockets.ts'

const fail = (error: unknown) => {
  throw error
}

test('createPoller() reports a connection on a raw listener, and acceptTcp() names the caller', async () => {
  await using poller = createPoller({ onError: fail })
  const listener = listenTcp({ address: '::1', port: 0, mark: 0, backlog: 8 })
  const port = localPort(listener)
  const accepted = new Promise<ReturnType<typeof acceptTcp>>((resolve) => {
    poller.watch(listener, () => {
      poller.unwatch(listener)
      resolve(acceptTcp(listener))
    })
  })
  const client = connect(port, '::1')
  const connection = await accepted
  assert.equal(connection?.peer, '::1')
  assert.equal(connection?.peerPort, client.localPort)
  assert.equal(acceptTcp(listener), undefined)
  const ended = once(client, 'error')
  resetTcp(connection?.fd ?? -1)
  const [error] = (await ended) as [NodeJS.ErrnoException]
  assert.equal(error.code, 'ECONNRESET')
  closeFd(listener)
})

test('sendDescriptor() passes a descriptor that the other process can use', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'faas-native-'))
  const path = join(directory, 'c')
  const listener = listenUnix(path, { backlog: 1 })
  try {
    const program = `
import socket, os, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); s.connect(sys.argv[1])
data, fds, *_ = socket.recv_fds(s, 64, 1)
os.write(fds[0], b'from the receiver: ' + data)`
    const child = spawn('python3', ['-c', program, path], { stdio: ['ignore', 'pipe', 'inherit'] })
    await using poller = createPoller({ onError: fail })
    const control = await new Promise<number>((resolve) => {
      poller.watch(listener, () => {
        poller.unwatch(listener)
        resolve(acceptUnix(listener) ?? -1)
      })
    })
    assert.equal(peerCredentials(control).pid, child.pid)
    const tcp = listenTcp({ address: '::1', port: 0, mark: 0, backlog: 8 })
    const client = connect(localPort(tcp), '::1')
    await once(client, 'connect')
    const connection = acceptTcp(tcp)
    assert.ok(connection)
    assert.equal(sendDescriptor(control, 'SOCKET', connection.fd), true)
    closeFd(connection.fd)
    closeFd(control)
    closeFd(tcp)
    let answer = ''
    for await (const chunk of client) answer += chunk
    assert.equal(answer, 'from the receiver: SOCKET')
  } finally {
    closeFd(listener)
    rmSync(directory, { recursive: true })
  }
})

test('a process whose poller waits for nothing can exit', async () => {
  const module = new URL('poller.ts', import.meta.url).pathname
  const script = `
    const { createPoller } = await import(${JSON.stringify(module)})
    createPoller({ onError: console.error })
    setTimeout(() => process.exit(7), 50)`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'inherit' })
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000)
  assert.deepEqual(await once(child, 'exit'), [7, null])
  clearTimeout(timer)
})

test('a pidfd becomes readable when its process ends', async () => {
  await using poller = createPoller({ onError: fail })
  const child = spawn('sleep', ['30'], { stdio: 'ignore' })
  // Its status may be taken here before libuv looks, which would then wait for it forever.
  child.unref()
  const pidfd = pidfdOpen(child.pid ?? 0)
  assert.ok(pidfd !== undefined)
  const ended = new Promise<void>((resolve) => {
    poller.watch(pidfd, () => {
      poller.unwatch(pidfd)
      resolve()
    })
  })
  assert.equal(pidfdSignal(pidfd, 15), true)
  await ended
  reapPidfd(pidfd)
  closeFd(pidfd)
})

test('reapOrphans() takes what ended and nobody waits for, and leaves alone what somebody does', async () => {
  becomeSubreaper()
  const parent = spawn('sh', ['-c', 'sleep 0.1 & echo $!'], { stdio: ['ignore', 'pipe', 'ignore'] })
  // To the end: what is left unread in a pipe keeps this process alive.
  const orphan = await text(parent.stdout)
  const known = spawn('sh', ['-c', 'exit 7'])
  const exited = once(known, 'exit')
  await reapOrphans()
  assert.throws(() => process.kill(Number(orphan), 0), { code: 'ESRCH' })
  assert.deepEqual(await exited, [7, null])
})

test('socketOwner() finds the uid of a local connection and nothing for a foreign one', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const client = connect(port, '127.0.0.1')
  await once(client, 'connect')
  const local = { address: '127.0.0.1', port: client.localPort ?? 0 }
  const remote = { address: '127.0.0.1', port }
  assert.equal(socketOwner({ local, remote }), process.getuid?.())
  assert.equal(socketOwner({ local: { address: '127.0.0.1', port: 1 }, remote }), undefined)
  client.destroy()
  server.close()
})

test('openLinkMonitor() opens and drains without blocking', () => {
  const fd = openLinkMonitor()
  drainNetlink(fd)
  closeFd(fd)
})

test('acquireLock() refuses a second holder and lets go when disposed', () => {
  const directory = mkdtempSync(join(tmpdir(), 'faas-lock-'))
  const path = join(directory, 'lock')
  {
    using _first = acquireLock(path)
    assert.throws(() => acquireLock(path), { code: 'ALREADY_RUNNING' })
  }
  using _second = acquireLock(path)
  rmSync(directory, { recursive: true })
})
