/** A served API for tests: real sockets on a free port, a fake platform behind them. */
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { FindUser, SocketOwner } from '../../src/api/access.ts'
import { createFakePlatform } from '../../src/api/fake-platform.ts'
import { listenApi } from '../../src/api/listen.ts'
import type { Platform } from '../../src/api/platform.ts'
import { createApi } from '../../src/api/server.ts'
import type { UploadPace } from '../../src/api/upload.ts'
import { socketOwner as kernelSocketOwner } from '../../src/host/native/netlink.ts'

export interface ServeOptions {
  readonly platform?: Partial<Platform>
  readonly socketOwner?: SocketOwner
  readonly findUser?: FindUser
  readonly headersTimeoutMs?: number
  readonly pace?: UploadPace
  readonly jsonBodyTimeoutMs?: number
}

/** The tests' own user counts as a member, so that they need not run as root. */
const findTester: FindUser = async (uid) => ({ name: String(uid), isMember: uid === process.getuid?.() })

export async function serve(context: TestContext, options: ServeOptions = {}) {
  const {
    socketOwner = kernelSocketOwner,
    findUser = findTester,
    headersTimeoutMs,
    pace,
    jsonBodyTimeoutMs,
  } = options
  const directory = await mkdtemp(join(tmpdir(), 'faas-api-'))
  context.after(() => rm(directory, { recursive: true, force: true }))
  const platform = createFakePlatform(options.platform)
  const app = await createApi({
    platform,
    ...(pace ? { pace } : {}),
    ...(jsonBodyTimeoutMs === undefined ? {} : { jsonBodyTimeoutMs }),
  })
  const socketPath = join(directory, 'api.sock')
  const listening = await listenApi({
    port: 0,
    socketPath,
    handler: (request, response) => app.routing(request, response),
    socketOwner,
    findUser,
    ...(headersTimeoutMs === undefined ? {} : { headersTimeoutMs }),
  })
  context.after(async () => {
    await listening[Symbol.asyncDispose]()
    await app.close()
  })
  return { platform, socketPath, directory, listening, port: listening.port, addresses: listening.addresses }
}

/** Sends bytes as they are; answers all that comes back until the other side closes, or `until` is in it. */
export function exchange(
  port: number,
  text: string | Uint8Array,
  { until, host = '127.0.0.1' }: { until?: string; host?: string } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host })
    const timer = setTimeout(
      () => socket.destroy(new Error(`no end after 15 s; so far: ${received}`)),
      15_000,
    )
    let received = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      received += chunk
      if (until !== undefined && received.includes(until)) socket.destroy()
    })
    // A reset after the answer is an end like any other.
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') reject(error)
    })
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(received)
    })
    socket.write(text)
  })
}

export const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0)
export const codeOf = (answer: string): string => /"code":"([A-Z_]+)"/.exec(answer)?.[1] ?? ''
