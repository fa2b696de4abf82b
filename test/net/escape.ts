/**
 * A hostile handler: it is started in an empty network namespace with sockets of the host's namespace from descriptor 3 on, gives up
 * every privilege, and tries one way out with each (hardening §3.2). Arguments: one attempt a descriptor, `KIND` or `KIND ADDRESS PORT`
 * joined by commas. It prints one JSON array: what became of each, `connected`, `listening PORT`, `sent` or the errno.
 */
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const connect = libc.func('int connect(int, void *, uint)')
const bind = libc.func('int bind(int, void *, uint)')
const listen = libc.func('int listen(int, int)')
const shutdown = libc.func('int shutdown(int, int)')
const sendto = libc.func('long sendto(int, void *, size_t, int, void *, uint)')
const setsockopt = libc.func('int setsockopt(int, int, int, void *, uint)')
const getsockopt = libc.func('int getsockopt(int, int, int, void *, void *)')
const getsockname = libc.func('int getsockname(int, void *, void *)')
const poll = libc.func('int poll(void *, ulong, int)')

const MSG_FASTOPEN = 0x20000000
const MSG_NOSIGNAL = 0x4000
const IPPROTO_TCP = 6
const IPPROTO_IPV6 = 41
const names = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]))
const errno = () => names.get(koffi.errno()) ?? `errno ${koffi.errno()}`

function sockaddr(address: string, port: number): Buffer {
  const bytes = Buffer.alloc(28)
  bytes.writeUInt16LE(10, 0)
  bytes.writeUInt16BE(port, 2)
  const [head = '', tail = ''] = address.split('::')
  const groups = (text: string) =>
    text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16))
  groups(head).forEach((group, index) => bytes.writeUInt16BE(group, 8 + index * 2))
  const last = groups(tail)
  last.forEach((group, index) => bytes.writeUInt16BE(group, 24 - (last.length - index) * 2))
  return bytes
}

const int = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value)
  return bytes
}

/** Waits until a started connect has ended, and says how. */
function outcome(fd: number): string {
  const request = Buffer.alloc(8)
  request.writeInt32LE(fd, 0)
  request.writeInt16LE(4, 4)
  if (poll(request, 1, 3000) === 0) return 'ETIMEDOUT'
  const error = Buffer.alloc(4)
  getsockopt(fd, 1, 4, error, int(4))
  const value = error.readInt32LE(0)
  return value === 0 ? 'connected' : (names.get(value) ?? `errno ${value}`)
}

const disconnect = (fd: number) => connect(fd, Buffer.alloc(28), 28)

function connectTo(fd: number, address: string, port: number): string {
  if (connect(fd, sockaddr(address, port), 28) === 0) return 'connected'
  const error = errno()
  return error === 'EINPROGRESS' ? outcome(fd) : error
}

function listenOn(fd: number): string {
  if (listen(fd, 8) !== 0) return errno()
  const name = Buffer.alloc(28)
  getsockname(fd, name, int(28))
  return `listening ${name.readUInt16BE(2)}`
}

/** A segment routing header (RFC 8754 §2) that leads a packet to `address` before its own destination. */
function routingHeader(address: string): Buffer {
  const header = Buffer.alloc(40)
  header.set([0, 4, 4, 1, 1])
  sockaddr(address, 0).copy(header, 24, 8, 24)
  return header
}

const attempts: Record<string, (fd: number, address: string, port: number) => string> = {
  answer: (fd) => (sendto(fd, Buffer.from('answer'), 6, MSG_NOSIGNAL, null, 0) === 6 ? 'sent' : errno()),
  reconnect: (fd, address, port) => {
    disconnect(fd)
    return connectTo(fd, address, port)
  },
  rebind: (fd, address, port) => {
    disconnect(fd)
    setsockopt(fd, IPPROTO_IPV6, 26, int(0), 4) // IPV6_V6ONLY off
    if (bind(fd, sockaddr('::', 0), 28) !== 0) return errno()
    return connectTo(fd, address, port)
  },
  fastopen: (fd, address, port) => {
    disconnect(fd)
    const sent = sendto(fd, Buffer.from('hello'), 5, MSG_FASTOPEN | MSG_NOSIGNAL, sockaddr(address, port), 28)
    const error = errno()
    return sent >= 0 || error === 'EINPROGRESS' ? outcome(fd) : error
  },
  fastopenConnect: (fd, address, port) => {
    disconnect(fd)
    setsockopt(fd, IPPROTO_TCP, 30, int(1), 4) // TCP_FASTOPEN_CONNECT
    const connected = connectTo(fd, address, port)
    if (connected !== 'connected') return connected
    sendto(fd, Buffer.from('hello'), 5, MSG_NOSIGNAL, null, 0)
    return outcome(fd)
  },
  shutdownListener: (fd, address, port) => {
    shutdown(fd, 0)
    disconnect(fd)
    return connectTo(fd, address, port)
  },
  listen: (fd) => {
    disconnect(fd)
    return listenOn(fd)
  },
  bindAndListen: (fd, _address, port) => {
    disconnect(fd)
    setsockopt(fd, IPPROTO_IPV6, 26, int(0), 4) // IPV6_V6ONLY off
    return bind(fd, sockaddr('::', port), 28) === 0 ? listenOn(fd) : errno()
  },
  takeListener: (fd, address, port) => {
    disconnect(fd)
    return bind(fd, sockaddr(address, port), 28) === 0 ? listenOn(fd) : errno()
  },
  route: (fd, address) => {
    if (setsockopt(fd, IPPROTO_IPV6, 57, routingHeader(address), 40) !== 0) return errno() // IPV6_RTHDR
    return sendto(fd, Buffer.from('answer'), 6, MSG_NOSIGNAL, null, 0) === 6 ? 'sent' : errno()
  },
}

process.setgroups?.([])
process.setgid?.(65534)
process.setuid?.(65534)
const results = process.argv.slice(2).map((text, index) => {
  const [kind = '', address = '', port = '0'] = text.split(',')
  const attempt = attempts[kind]
  if (attempt === undefined) throw new Error(`no such attempt: ${kind}`)
  return attempt(index + 3, address, Number(port))
})
console.log(JSON.stringify(results))
// The sockets stay open while the test looks whether they are reached; its end of the pipe tells when.
process.stdin.resume()
