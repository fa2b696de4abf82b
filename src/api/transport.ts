/**
 * How a client reaches faasd: the UNIX socket, TCP on localhost, or a server over ssh, where `faas dial-stdio` joins
 * the ends. Each way is a function that opens one connection. Failures: OPTION_INVALID for a FAAS_HOST that is none of
 * the forms below, DAEMON_UNREACHABLE.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { connect as connectSocket, type NetConnectOpts } from 'node:net'
import { Duplex, type Readable, type Writable } from 'node:stream'
import { FaasError } from '../values/errors.ts'

export interface Transport {
  /** For people: where this leads. */
  readonly description: string
  /** Opens a connection; whoever asked for it closes it. */
  connect(): Promise<Duplex>
}

export const defaultSocketPath = '/run/faasd/api.sock'
const defaultPort = 8080

/**
 * The way that FAAS_HOST names: `ssh://[user@]host[:port]`, `unix:///path`, `http://localhost[:port]`.
 * Without it, the local UNIX socket, and TCP when that is not there or not for us (the server then says why).
 */
export function createTransport(host: string | undefined): Transport {
  if (host === undefined || host === '') return createLocalTransport()
  if (host.startsWith('unix:///')) return createSocketTransport({ path: host.slice('unix://'.length) }, host)
  const url = URL.parse(host)
  if (url?.protocol === 'ssh:') return createSshTransport(url)
  if (url?.protocol === 'http:' && ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)) {
    return createSocketTransport(
      { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port || 80) },
      host,
    )
  }
  throw new FaasError(
    'OPTION_INVALID',
    `FAAS_HOST must be ssh://[user@]host[:port], got ${JSON.stringify(host)}`,
    {
      hint: 'on the server itself leave FAAS_HOST unset (unix:///path and http://localhost:PORT work as well)',
    },
  )
}

function createLocalTransport(): Transport {
  const socket = createSocketTransport({ path: defaultSocketPath }, defaultSocketPath)
  const tcp = createSocketTransport(
    { host: 'localhost', port: defaultPort },
    `http://localhost:${defaultPort}`,
  )
  return {
    description: `${socket.description} or ${tcp.description}`,
    connect: () =>
      socket.connect().catch((error: unknown) =>
        tcp.connect().catch(() => {
          throw error
        }),
      ),
  }
}

function createSocketTransport(where: NetConnectOpts, description: string): Transport {
  const connect = () =>
    new Promise<Duplex>((resolve, reject) => {
      const socket = connectSocket(where)
      socket.once('connect', () => {
        socket.off('error', onError)
        resolve(socket)
      })
      const onError = (error: NodeJS.ErrnoException) => reject(unreachable(description, error))
      socket.once('error', onError)
    })
  return { description, connect }
}

function unreachable(description: string, error: NodeJS.ErrnoException): FaasError {
  if (error.code === 'EACCES') {
    return new FaasError('CALLER_REFUSED', `no permission for ${description}`, {
      hint: 'use sudo, or as root: usermod -aG faas USER (then log in again)',
      cause: error,
    })
  }
  return new FaasError(
    'DAEMON_UNREACHABLE',
    `cannot reach faasd at ${description}: ${error.code ?? error.message}`,
    {
      hint: 'is it running? start it with: sudo faas up; for another machine set FAAS_HOST=ssh://user@server',
      cause: error,
    },
  )
}

/** No part may begin with `-` or hold anything but these: ssh takes options anywhere, and its own words for hosts. */
const sshName = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/
const sshHost = /^(?:[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9a-fA-F:.]+\])$/

/** The arguments of ssh(1) for a URL. Throws OPTION_INVALID. */
export function renderSshArguments(url: URL): readonly string[] {
  const user = decodeURIComponent(url.username)
  const isPlain =
    ['', '/'].includes(url.pathname) && url.search === '' && url.hash === '' && url.password === ''
  if (!isPlain || !sshHost.test(url.hostname) || (user !== '' && !sshName.test(user))) {
    throw new FaasError(
      'OPTION_INVALID',
      `FAAS_HOST must be ssh://[user@]host[:port], got ${JSON.stringify(url.href)}`,
    )
  }
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const port = url.port === '' ? [] : ['-p', url.port]
  return [
    '-T',
    '-o',
    'ConnectTimeout=15',
    ...port,
    '--',
    user === '' ? host : `${user}@${host}`,
    'faas',
    'dial-stdio',
  ]
}

function createSshTransport(url: URL): Transport {
  const args = renderSshArguments(url)
  return {
    description: url.href,
    connect: async () => {
      // ssh's own questions and complaints go to the terminal.
      const child = spawn('ssh', args, { stdio: ['pipe', 'pipe', 'inherit'] })
      const connection = joinChild(child)
      child.once('error', (error: NodeJS.ErrnoException) => connection.destroy(unreachable(url.href, error)))
      child.once('close', (code) => {
        if (code === 0) return void connection.push(null)
        connection.destroy(
          new FaasError('DAEMON_UNREACHABLE', `cannot reach faasd at ${url.href}: ssh exited with ${code}`, {
            hint: `try: ssh ${args.slice(args.indexOf('--') + 1).join(' ')}`,
          }),
        )
      })
      return connection
    },
  }
}

/**
 * A child's input and output as one stream. A failed write is no failure: how the child ended says more, so the stream
 * ends only when the child has.
 */
function joinChild(child: ChildProcessByStdio<Writable, Readable, null>): Duplex {
  child.stdin.on('error', () => {})
  const connection = new Duplex({
    read: () => void child.stdout.resume(),
    write: (chunk, _encoding, done) => void child.stdin.write(chunk, () => done()),
    final: (done) => void child.stdin.end(() => done()),
    destroy: (error, done) => {
      child.kill()
      done(error)
    },
  })
  child.stdout.on('data', (chunk: Buffer) => {
    if (!connection.push(chunk)) child.stdout.pause()
  })
  return connection
}
