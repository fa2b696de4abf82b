/**
 * Tries to reach addresses from the network namespace that it is started in, all at once. Arguments: `tcp,ADDRESS,PORT,SOURCE`,
 * `udp,ADDRESS,PORT,SOURCE` or `ping,ADDRESS,0,SOURCE`; SOURCE may be empty. It prints one JSON array: `answer`, `refused`,
 * `unreachable` or `silence`. Run as another user with `--uid=N` first.
 */
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'

const patienceMs = 2_000

function tcp(host: string, port: number, localAddress: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  const socket = connect({ host, port, ...(localAddress === '' ? {} : { localAddress }) })
  socket.setTimeout(patienceMs, () => resolve('silence'))
  socket.on('connect', () => resolve('answer'))
  socket.on('error', (error: NodeJS.ErrnoException) => {
    resolve(
      error.code === 'ECONNREFUSED'
        ? 'refused'
        : error.code === 'EHOSTUNREACH'
          ? 'unreachable'
          : String(error.code),
    )
  })
  return promise.finally(() => socket.destroy())
}

function udp(host: string, port: number, source: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  const socket = createSocket('udp6')
  const timer = setTimeout(() => resolve('silence'), patienceMs)
  socket.on('message', () => resolve('answer'))
  socket.on('error', (error) => resolve(error.message))
  socket.bind({ ...(source === '' ? {} : { address: source }) }, () => socket.send('question', port, host))
  return promise.finally(() => {
    clearTimeout(timer)
    socket.close()
  })
}

async function ping(host: string, source: string): Promise<string> {
  const from = source === '' ? [] : ['-I', source]
  const child = spawn('ping', ['-6', '-c', '1', '-W', '2', ...from, host], { stdio: 'ignore' })
  const [status] = await once(child, 'exit')
  return status === 0 ? 'answer' : 'silence'
}

const [first = '', ...others] = process.argv.slice(2)
const uid = /^--uid=(\d+)$/.exec(first)?.[1]
if (uid !== undefined) process.setuid?.(Number(uid))
const targets = uid === undefined ? [first, ...others] : others
const results = await Promise.all(
  targets.map((target) => {
    const [kind, address = '', port = '0', source = ''] = target.split(',')
    if (kind === 'ping') return ping(address, source)
    return kind === 'udp' ? udp(address, Number(port), source) : tcp(address, Number(port), source)
  }),
)
console.log(JSON.stringify(results))
