/** Runs `faas` inside a test: streams in memory, a served API with a fake platform behind it. For tests only. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import type { TestContext } from 'node:test'
import type { Command } from 'commander'
import { createClient } from '../api/client.ts'
import { createFakePlatform } from '../api/fake-platform.ts'
import { listenApi } from '../api/listen.ts'
import type { Platform } from '../api/platform.ts'
import { createApi } from '../api/server.ts'
import { createTransport } from '../api/transport.ts'
import type { CliContext } from './context.ts'
import { runCli } from './run.ts'

/** A served fake platform; answers its FAAS_HOST. */
export async function serveFake(context: TestContext, overrides: Partial<Platform> = {}) {
  const directory = await mkdtemp(join(tmpdir(), 'faas-cli-'))
  context.after(() => rm(directory, { recursive: true, force: true }))
  const platform = createFakePlatform(overrides)
  const app = await createApi({ platform })
  const socketPath = join(directory, 'api.sock')
  const listening = await listenApi({
    port: 0,
    socketPath,
    handler: (request, response) => app.routing(request, response),
    socketOwner: () => undefined,
    findUser: async (uid) => ({ name: String(uid), isMember: false }),
  })
  context.after(async () => {
    await listening[Symbol.asyncDispose]()
    await app.close()
  })
  return { platform, directory, host: `unix://${socketPath}` }
}

export interface RunOptions {
  readonly host: string
  /** A terminal without input when left out. */
  readonly stdin?: string | Uint8Array
  readonly isTTY?: boolean
  readonly env?: Record<string, string>
  readonly signal?: AbortSignal
  readonly more?: (context: CliContext) => readonly Command[]
}

export interface RunResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs one command line to its end. */
export async function run(words: readonly string[], options: RunOptions): Promise<RunResult> {
  const { host, stdin, isTTY = false, env = {}, signal = new AbortController().signal } = options
  const collected = () => {
    const chunks: Buffer[] = []
    const stream = Object.assign(new PassThrough(), { isTTY })
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    return { stream, text: () => Buffer.concat(chunks).toString('utf8') }
  }
  const stdout = collected()
  const stderr = collected()
  const transport = () => createTransport(host)
  const context: CliContext = {
    stdin: Object.assign(Readable.from(stdin === undefined ? [] : [Buffer.from(stdin)]), {
      isTTY: stdin === undefined,
    }),
    stdout: stdout.stream,
    stderr: stderr.stream,
    env,
    version: '1.2.3',
    createClient: () => createClient({ transport: transport() }),
    signal,
  }
  const code = await runCli(words, {
    context,
    createTransport: transport,
    more: options.more?.(context) ?? [],
  })
  return { code, stdout: stdout.text(), stderr: stderr.text() }
}
