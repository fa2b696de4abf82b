/**
 * A server with functions of the `fd` contract, for tests of how their instances come and go. Callers are programs on
 * the server itself. All times are of CLOCK_MONOTONIC, which callers and handlers share, so that events of both can be
 * put in order.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { FunctionDetail, FunctionStats } from '../../src/api/answers.ts'
import { eventually } from '../../src/host/eventually.ts'
import { buildPythonImage } from '../images/build.ts'
import { createLab } from '../machines/lab.ts'
import type { Machine } from '../machines/machine.ts'
import { type Platform, startPlatform } from '../machines/platform.ts'

export const runtimes = ['runc', 'crun'] as const

/** What a handler says of itself, and its caller of the call. */
export interface Call {
  /** Drawn by each process of a handler at its start. */
  readonly token: string
  /** When that process began to wait for its first connection. */
  readonly waitsSince: number
  /** How many connections it has had, this one counted. */
  readonly turn: number
  readonly version: string
  readonly calledAt: number
  readonly firstByteMs: number
  /** Undefined where all went well. */
  readonly error?: string
}

export interface World extends AsyncDisposable {
  readonly server: Machine
  readonly platform: Platform
  deploy(name: string, archive: string, ...options: readonly string[]): Promise<void>
  /** Calls a function `count` times, `concurrency` at a time. */
  call(name: string, count: number, concurrency?: number, path?: string): Promise<readonly Call[]>
  stats(name: string): Promise<FunctionStats>
  describe(name: string): Promise<FunctionDetail>
  /** Waits until so many instances of a function wait, and no other exists. */
  settled(name: string, standbys: number): Promise<void>
  /** Names of the instances' directories. */
  instances(name: string): Promise<readonly string[]>
  /** The processes of a function's handlers. */
  pids(name: string): Promise<readonly number[]>
  daemonPid(): Promise<number>
}

/** A handler that says who it is; `/slow` takes 3 s over its answer. With `reuse` it goes on until it is ended. */
export const talkingHandler = (version: string, { reuse = false } = {}): string => `
import os, socket, time
token = os.urandom(8).hex()
control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
control.connect("/control.sock")
waits_since = time.monotonic_ns() / 1e6
turn = 0
while True:
    message, descriptors, _, _ = socket.recv_fds(control, 64, 1)
    if message != b"SOCKET":
        break
    turn += 1
    with socket.socket(fileno=descriptors[0]) as connection:
        request = b""
        while b"\\r\\n\\r\\n" not in request:
            part = connection.recv(4096)
            if not part:
                break
            request += part
        body = f'{{"token":"{token}","waitsSince":{waits_since},"turn":{turn},"version":"${version}"}}\\n'
        head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
        connection.sendall(head.encode())
        if b"/slow" in request:
            time.sleep(3)
        connection.sendall(body.encode())
    ${reuse ? 'control.sendall(b"n")' : 'break'}
`

export async function createWorld(runtime: (typeof runtimes)[number]): Promise<World> {
  await using making = new AsyncDisposableStack()
  const { server } = making.use(await createLab())
  const platform = making.use(await startPlatform(server, { env: { FAAS_RUNTIME: runtime } }))
  const made = making.move()

  const get = async <T>(path: string): Promise<T> => {
    const { stdout } = await server.exec([
      'curl',
      ...['--silent', '--fail', '--unix-socket', '/run/faasd/api.sock', `http://localhost/api/${path}`],
    ])
    return JSON.parse(stdout) as T
  }
  const stats = (name: string) => get<FunctionStats>(`functions/${name}/stats`)
  const lines = (text: string): string[] => text.split('\n').filter(Boolean)

  return {
    server,
    platform,
    stats,
    describe: (name) => get<FunctionDetail>(`functions/${name}`),
    async deploy(name, archive, ...options) {
      await server.exec(['faas', 'new', name, archive, '--contract', 'fd', ...options])
    },
    async call(name, count, concurrency = 1, path = '/') {
      const { ip } = await get<{ ip: string }>(`ip/${name}`)
      const { stdout } = await server.exec(
        [
          process.execPath,
          join(import.meta.dirname, 'caller.ts'),
          ip,
          path,
          String(count),
          String(concurrency),
        ],
        { timeoutMs: 120_000 },
      )
      return JSON.parse(stdout) as Call[]
    },
    settled: (name, standbys) =>
      eventually(
        `${standbys} standbys of ${name} wait`,
        async () => {
          const { instances, standbys: found } = await stats(name)
          assert.deepEqual({ instances, found }, { instances: standbys, found: standbys })
        },
        { timeoutMs: 60_000, intervalMs: 100 },
      ),
    instances: async (name) => lines(await server.sh(`ls /run/faasd/i | grep '^faas-${name}-' || true`)),
    async pids(name) {
      const found = await server.exec(['pgrep', '--full', `^python3 /app/${name}.py$`], { okCodes: [0, 1] })
      return lines(found.stdout).map(Number)
    },
    async daemonPid() {
      const { stdout } = await server.exec([
        'pgrep',
        '--parent',
        String(platform.pid),
        '--full',
        'daemon/main',
      ])
      return Number(stdout.trim())
    },
    [Symbol.asyncDispose]: () => made.disposeAsync(),
  }
}

/** An image whose handler is known by the function's name among the server's processes. */
export const handlerImage = (name: string, handler: string): Promise<string> =>
  buildPythonImage({
    name,
    handler,
    cmd: ['python3', `/app/${name}.py`],
    files: [{ path: `app/${name}.py`, content: handler }],
    base: 'python-ctypes',
  })

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}
