/**
 * A deploy's options as query parameters of `POST /api/new`, checked: `?memory=256Mi&cpu=500m&env=KEY=VALUE&env=…`.
 * What is left out keeps the platform's default. Failures: OPTION_INVALID, naming the parameter.
 */
import { z } from 'zod'
import { functionPort } from '../net/addresses.ts'
import type { DeployOptions } from './platform.ts'
import { parseCpu, parseDuration, parseMemory } from './quantities.ts'

const mebibyte = 2 ** 20
const hourMs = 3_600_000

function quantity(
  parse: (text: string) => number | undefined,
  { min, max, form, description }: { min: number; max: number; form: string; description: string },
) {
  return z
    .string()
    .transform((text, context) => {
      const amount = parse(text)
      if (amount !== undefined && amount >= min && amount <= max) return amount
      context.addIssue({
        code: 'custom',
        message: `expected ${form}, got ${JSON.stringify(text.slice(0, 40))}`,
      })
      return z.NEVER
    })
    .optional()
    .describe(`${description}: ${form}`)
}

const memory = (description: string, min: number) =>
  quantity(parseMemory, { min, max: 2 ** 42, form: 'an amount such as 512Mi, 4Mi to 4Ti', description })
const duration = (description: string) =>
  quantity(parseDuration, {
    min: 10,
    max: 24 * hourMs,
    form: 'a duration such as 500ms or 30s, 10ms to 24h',
    description,
  })
const count = (description: string, max: number) =>
  quantity((text) => (/^\d{1,9}$/.test(text) ? Number(text) : undefined), {
    min: 1,
    max,
    form: `a whole number from 1 to ${max}`,
    description,
  })

const maxVariables = 256
const variable = z
  .string()
  .max(32 * 1024)
  .regex(/^[A-Za-z_][A-Za-z0-9_]*=[^\0]*$/, 'expected KEY=VALUE')

const maxPorts = 16
const port = z
  .string()
  .regex(/^\d{1,5}(:\d{1,5})?$/, 'expected PORT or PUBLIC:PORT')
  .transform((text) => {
    const [first = 0, second] = text.split(':').map(Number)
    return second === undefined ? { port: functionPort, target: first } : { port: first, target: second }
  })
  .refine(({ port, target }) => isPort(port) && isPort(target), 'expected ports from 1 to 65535')
const isPort = (number: number): boolean => number >= 1 && number <= 65_535

export const deployQuery = z.strictObject({
  image: z
    .string()
    .min(1)
    .max(512)
    .optional()
    .describe('Which image of the archive, as NAME:TAG, when it holds several'),
  memory: memory('Memory of an instance', 4 * mebibyte),
  cpu: quantity(parseCpu, {
    min: 10,
    max: 1_000_000,
    form: 'cores such as 500m or 1.5, at least 10m',
    description: 'CPU time of an instance',
  }),
  pids: count('Processes and threads of an instance', 32_768),
  tmp: memory("Size of an instance's /tmp", 4 * mebibyte),
  env: z
    .union([variable.transform((one) => [one]), z.array(variable).max(maxVariables)])
    .optional()
    .describe('KEY=VALUE, once for each variable'),
  'connect-timeout': duration('From the start of an instance until it has connected to /control.sock'),
  timeout: duration('How long an instance may take for a connection'),
  'queue-timeout': duration('How long a connection waits while all instances are busy'),
  max: count('Instances at one time, at most', 10_000),
  min: quantity((text) => (/^\d{1,5}$/.test(text) ? Number(text) : undefined), {
    min: 0,
    max: 10_000,
    form: 'a whole number from 0 to 10000',
    description: 'Instances that are kept when nobody calls',
  }),
  contract: z
    .enum(['fd', 'listen'])
    .optional()
    .describe('How the image gets its requests; found out when left out'),
  port: z
    .union([port.transform((one) => [one]), z.array(port).max(maxPorts)])
    .optional()
    .describe('Where the image listens: PORT, called at port 80, or PUBLIC:PORT; once for each'),
  standby: quantity((text) => (/^\d{1,5}$/.test(text) ? Number(text) : undefined), {
    min: 0,
    max: 10_000,
    form: 'a whole number from 0 to 10000',
    description:
      'Contract fd: instances that wait ahead of connections, always; by demand, and none when idle, when left out',
  }),
  reuse: z
    .enum(['true', 'false'])
    .optional()
    .describe('Contract fd: instances may ask for the next connection when they have answered'),
  pause: duration('Contract listen: how long without a connection until instances are frozen'),
  idle: duration(
    'Contract listen: how long frozen until instances are ended; fd: how long without a connection until those are ended that wait for one',
  ),
  writable: z
    .enum(['true', 'false'])
    .optional()
    .describe('An ephemeral layer over the image that can be written'),
  health: z
    .string()
    .max(1024)
    .regex(/^\/[!-"$-~]*$/, 'expected a path such as /healthz, without spaces and #')
    .optional()
    .describe('A path that a new version must answer with 2xx before it takes over'),
})

/** Checked query parameters in the words of {@link DeployOptions}. */
export function toDeployOptions(query: z.output<typeof deployQuery>): DeployOptions {
  return present({
    pick: query.image,
    limits: present({
      memoryBytes: query.memory,
      cpuMillis: query.cpu,
      pids: query.pids,
      tmpBytes: query.tmp,
    }),
    env: query.env && Object.fromEntries(query.env.map(splitVariable)),
    timeouts: present({
      connectMs: query['connect-timeout'],
      totalMs: query.timeout,
      queueMs: query['queue-timeout'],
      pauseMs: query.pause,
      idleMs: query.idle,
    }),
    contract: query.contract,
    ports: query.port,
    maxInstances: query.max,
    minInstances: query.min,
    standby: query.standby,
    reuse: query.reuse === undefined ? undefined : query.reuse === 'true',
    writable: query.writable === undefined ? undefined : query.writable === 'true',
    health: query.health,
  })
}

function splitVariable(text: string): [string, string] {
  const at = text.indexOf('=')
  return [text.slice(0, at), text.slice(at + 1)]
}

type Present<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** The same object without the keys whose value is undefined. */
function present<T extends object>(values: T): Present<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Present<T>
}
