/** `faas new NAME [FILE|IMAGE]`: deploys an image. */
import { Command } from 'commander'
import type { Deployed, Progress } from '../api/answers.ts'
import { parseFunctionName } from '../values/names.ts'
import { openArchive } from './archive.ts'
import { type CliContext, isJson, printNote, printResult } from './context.ts'
import { renderArgv, renderPairs } from './text.ts'
import { createUploadMeter } from './upload-meter.ts'

interface NewOptions {
  image?: string
  memory?: string
  cpu?: string
  pids?: string
  tmp?: string
  env?: string[]
  connectTimeout?: string
  timeout?: string
  queueTimeout?: string
  max?: string
  min?: string
  standby?: string
  reuse?: boolean
  contract?: string
  port?: string[]
  pause?: string
  idle?: string
  writable?: boolean
  health?: string
}

const repeated = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value]

export function newCommand(context: CliContext): Command {
  const command = new Command('new')
    .description('deploy an image as a function')
    .argument('<name>', 'name of the function: it answers at http://NAME.faas/')
    .argument(
      '[source]',
      'an archive made by docker save, or the name of an image; standard input when left out',
    )
    .option('--image <name:tag>', 'which image, when the archive holds several')
    .option('--memory <amount>', 'memory of an instance, such as 512Mi')
    .option('--cpu <cores>', 'CPU time of an instance, such as 500m or 1.5')
    .option('--pids <count>', 'processes and threads of an instance')
    .option('--tmp <amount>', "size of an instance's /tmp, such as 64Mi")
    .option('-e, --env <key=value>', 'a variable; may be repeated', repeated)
    .option(
      '--connect-timeout <time>',
      'how long an instance may take to connect to /control.sock, such as 5s',
    )
    .option('--timeout <time>', 'how long an instance may take for a connection, such as 30s')
    .option('--queue-timeout <time>', 'how long a connection waits while all instances are busy')
    .option('--max <count>', 'instances at one time, at most')
    .option('--min <count>', 'listen: of the instances that callers have started, how many stay frozen')
    .option('--standby <count>', 'fd: instances that wait ahead of connections; by demand when left out')
    .option('--reuse', 'fd: instances may ask for the next connection when they have answered')
    .option('--contract <name>', 'how the image gets its requests, fd or listen; found out when left out')
    .option('--port <port>', 'where the image listens: PORT, or PUBLIC:PORT; may be repeated', repeated)
    .option('--pause <time>', 'listen: how long without a connection until instances are frozen')
    .option('--idle <time>', 'how long without a connection until frozen (fd: waiting) instances are ended')
    .option('--writable', 'an ephemeral layer over the image that can be written')
    .option('--health <path>', 'a path that a new version must answer with 2xx before it takes over')
  return command.action(async (nameText: string, source: string | undefined, options: NewOptions) => {
    const name = parseFunctionName(nameText)
    const archive = await openArchive(source, context)
    const meter = createUploadMeter(context.stderr, archive, { isShown: !isJson(command) })
    const deployed = await context
      .createClient()
      .deploy(name, meter.measured, {
        query: toQuery(options),
        onProgress: ({ step, message }: Progress) => meter.step(`${step}: ${message}`),
        signal: context.signal,
      })
      .finally(() => meter.end())
    printDeployed(context, command, deployed)
  })
}

/** What a deploy or a rollback has put in place. */
export function printDeployed(context: CliContext, command: Command, deployed: Deployed): void {
  for (const warning of deployed.warnings ?? []) printNote(context, `warning: ${warning}`)
  const answer = { ...deployed, url: `http://${deployed.name}.faas/` }
  printResult(context, command, answer, () =>
    renderPairs([
      ['name', answer.name],
      ['address', answer.ip],
      ['url', answer.url],
      ['contract', answer.contract],
      ['version', String(answer.version)],
      ['command', renderArgv(answer.cmd)],
    ]),
  )
}

const toQuery = (options: NewOptions) => ({
  image: options.image,
  memory: options.memory,
  cpu: options.cpu,
  pids: options.pids,
  tmp: options.tmp,
  env: options.env,
  'connect-timeout': options.connectTimeout,
  timeout: options.timeout,
  'queue-timeout': options.queueTimeout,
  max: options.max,
  min: options.min,
  standby: options.standby,
  reuse: options.reuse ? 'true' : undefined,
  contract: options.contract,
  port: options.port,
  pause: options.pause,
  idle: options.idle,
  writable: options.writable ? 'true' : undefined,
  health: options.health,
})
