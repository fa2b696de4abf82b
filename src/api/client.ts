/**
 * A typed client of the API. Failures are FaasErrors: the server's own, with its code, or DAEMON_UNREACHABLE when
 * there is none to be reached, or when the connection breaks before its answer.
 */
import {
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http'
import { Readable } from 'node:stream'
import { type ErrorCode, errorCodes, FaasError } from '../values/errors.ts'
import type { FunctionName } from '../values/names.ts'
import { type Deployed, errorEnvelope, type LogLine, type Progress } from './answers.ts'
import {
  type AnswerOf,
  type BodyOf,
  type Operation,
  type Operations,
  operations,
  type QueryOf,
} from './contract.ts'
import type { Transport } from './transport.ts'

type Call<O extends Operation> = (O['path'] extends `${string}:name${string}` ? { name: string } : unknown) &
  (BodyOf<O> extends undefined ? unknown : { body: BodyOf<O> }) & { query?: Query }
type Query = Readonly<Record<string, string | readonly string[] | undefined>>

/** The calls with one JSON answer. */
type PlainCalls = Exclude<keyof Operations, 'deploy' | 'logs' | 'metrics'>

export interface DeployCall {
  /** Parameters as {@link QueryOf} the deploy takes them, still as text: the server checks them. */
  readonly query?: {
    readonly [K in keyof QueryOf<Operations['deploy']>]?: string | readonly string[] | undefined
  }
  readonly onProgress?: (progress: Progress) => void
  readonly signal?: AbortSignal
}

export interface Client {
  /** Where this client leads, for people. */
  readonly server: string
  call<K extends PlainCalls>(id: K, call: Call<Operations[K]>): Promise<AnswerOf<Operations[K]>>
  /** Sends `archive` once the server asks for it: what is refused before costs no upload. */
  deploy(name: FunctionName, archive: AsyncIterable<Uint8Array>, call?: DeployCall): Promise<Deployed>
  /** Ends with the answer, or when `signal` aborts. */
  logs(
    name: string,
    options: { follow: boolean; tail?: string },
    signal?: AbortSignal,
  ): AsyncIterable<LogLine>
}

export function createClient({ transport }: { transport: Transport }): Client {
  const open = async (operation: Operation, options: OpenOptions): Promise<ClientRequest> => {
    const connection = await transport.connect()
    const request: RequestOptions = {
      method: operation.method,
      path: renderPath(operation.path, options),
      headers: { host: 'localhost', connection: 'close', ...options.headers },
      createConnection: () => connection,
      ...(options.signal ? { signal: options.signal } : {}),
    }
    return httpRequest(request)
  }
  const lost = (error: unknown): FaasError => {
    if (error instanceof FaasError) return error
    const words = error instanceof Error ? error.message : String(error)
    return new FaasError(
      'DAEMON_UNREACHABLE',
      `the connection to faasd at ${transport.description} broke: ${words}`,
      {
        hint: 'look at the server: faas status, and the log of faasd',
        cause: error,
      },
    )
  }

  return {
    server: transport.description,

    async call(id, call) {
      const { body, ...options } = call as { name?: string; body?: unknown; query?: Query }
      const text = body === undefined ? undefined : JSON.stringify(body)
      const headers =
        text === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
      const request = await open(operations[id], { ...options, headers })
      try {
        const answered = responseTo(request)
        request.end(text)
        const response = await answered
        const answer = parseJson(await readText(response))
        // A failing platform says so with 503 and the usual answer.
        if (response.statusCode !== 200 && !(id === 'health' && isHealth(answer)))
          throw toServerError(response, answer)
        return answer as never
      } catch (error) {
        throw lost(error)
      }
    },

    async deploy(name, archive, { query = {}, onProgress, signal } = {}) {
      const headers = {
        'x-image-name': name,
        'content-type': 'application/x-tar',
        'transfer-encoding': 'chunked',
        expect: '100-continue',
        accept: 'application/x-ndjson',
      }
      const request = await open(operations.deploy, {
        query,
        headers,
        ...(signal ? { signal } : {}),
      })
      const upload = new Upload(request, archive)
      try {
        const answered = responseTo(request)
        request.flushHeaders()
        const response = await Promise.race([answered, upload.failure])
        const isStream = response.headers['content-type']?.startsWith('application/x-ndjson') === true
        if (response.statusCode !== 200) throw toServerError(response, parseJson(await readText(response)))
        if (!isStream) return parseJson(await readText(response)) as Deployed
        return await Promise.race([readProgress(response, onProgress), upload.failure])
      } catch (error) {
        throw lost(error)
      } finally {
        upload.stop()
      }
    },

    async *logs(name, { follow, tail }, signal) {
      const query = { follow: String(follow), tail }
      try {
        const headers = { accept: 'application/x-ndjson' }
        const request = await open(operations.logs, { name, query, headers, ...(signal ? { signal } : {}) })
        const answered = responseTo(request)
        request.end()
        const response = await answered
        if (response.statusCode !== 200) throw toServerError(response, parseJson(await readText(response)))
        for await (const line of readLines(response)) yield parseJson(line) as LogLine
      } catch (error) {
        if (signal?.aborted) return
        throw lost(error)
      }
    },
  }
}

interface OpenOptions {
  readonly name?: string
  readonly query?: Query
  readonly headers?: Record<string, string | number>
  readonly signal?: AbortSignal
}

function renderPath(path: string, { name, query = {} }: OpenOptions): string {
  const parameters = new URLSearchParams()
  for (const [key, value] of Object.entries(query)) {
    for (const one of value === undefined ? [] : [value].flat()) parameters.append(key, String(one))
  }
  // `.` and `..` stay as they are in encodeURIComponent(): the server refuses them as names.
  const filled = name === undefined ? path : path.replace(':name', () => encodeURIComponent(name))
  return parameters.size === 0 ? filled : `${filled}?${parameters.toString()}`
}

/** Sends the archive from the server's `100 Continue` until {@link stop}. */
class Upload {
  /** Rejects with what the archive's own source threw. */
  readonly failure: Promise<never>
  readonly #request: ClientRequest
  readonly #source: Readable

  constructor(request: ClientRequest, archive: AsyncIterable<Uint8Array>) {
    this.#request = request
    this.#source = Readable.from(archive, { objectMode: false })
    this.failure = new Promise((_, reject) => {
      this.#source.once('error', (error) => {
        reject(error)
        request.destroy()
      })
    })
    this.failure.catch(() => {})
    request.once('continue', () => this.#source.pipe(request))
  }

  stop(): void {
    this.#source.unpipe(this.#request)
    this.#source.on('error', () => {}).destroy()
    this.#request.on('error', () => {}).destroy()
  }
}

function responseTo(request: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.once('response', resolve)
    request.on('error', reject)
  })
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

/** Lines without their end; throws when the answer breaks off. */
async function* readLines(response: IncomingMessage): AsyncGenerator<string, void, undefined> {
  let rest = ''
  response.setEncoding('utf8')
  for await (const chunk of response) {
    const lines = (rest + (chunk as string)).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
}

async function readProgress(
  response: IncomingMessage,
  onProgress?: (progress: Progress) => void,
): Promise<Deployed> {
  for await (const line of readLines(response)) {
    const { result, error, ...progress } = parseJson(line) as {
      result?: Deployed
      error?: unknown
    } & Progress
    if (result !== undefined) return result
    if (error !== undefined) throw toServerError(response, { error })
    onProgress?.(progress)
  }
  throw new Error('the answer was cut short')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new FaasError(
      'DAEMON_UNREACHABLE',
      `what answered is not faasd: ${JSON.stringify(text.slice(0, 80))}`,
      { cause: error },
    )
  }
}

const isHealth = (answer: unknown): boolean =>
  typeof answer === 'object' && answer !== null && 'checks' in answer

function toServerError(response: IncomingMessage, answer: unknown): FaasError {
  const parsed = errorEnvelope.safeParse(answer)
  if (!parsed.success)
    return new FaasError('DAEMON_UNREACHABLE', `what answered is not faasd: HTTP ${response.statusCode}`)
  const { code, message, hint } = parsed.data.error
  const options = hint === undefined ? {} : { hint }
  // A newer server may have codes that this client does not know.
  if (!Object.hasOwn(errorCodes, code)) return new FaasError('INTERNAL', `${message} (${code})`, options)
  return new FaasError(code as ErrorCode, message, options)
}
