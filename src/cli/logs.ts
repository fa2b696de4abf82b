/** `faas logs [-f] NAME`: what a function printed, one line each with time, instance and stream. */
import { once } from 'node:events'
import { Command } from 'commander'
import type { LogLine } from '../api/answers.ts'
import { type CliContext, isJson } from './context.ts'
import { harmless } from './text.ts'

export function logsCommand(context: CliContext): Command {
  const command = new Command('logs')
    .description('show what a function printed')
    .argument('<name>', 'name of the function')
    .option('-f, --follow', 'stay, and show each new line')
    .option('-n, --tail <count>', 'how many of the last lines to begin with')
  return command.action(async (name: string, options: { follow?: boolean; tail?: string }) => {
    const client = context.createClient()
    const query = {
      follow: options.follow ?? false,
      ...(options.tail === undefined ? {} : { tail: options.tail }),
    }
    for await (const line of client.logs(name, query, context.signal)) {
      const text = isJson(command) ? JSON.stringify(line) : renderLine(line, context.stdout.isTTY === true)
      if (!context.stdout.write(`${text}\n`)) await once(context.stdout, 'drain')
    }
  })
}

/** On a terminal a function's text must not steer it; in a file or a pipe it stays as it is. */
function renderLine({ time, instance, stream, text }: LogLine, isTerminal: boolean): string {
  return `${time} ${instance} ${stream}: ${isTerminal ? harmless(text) : text}`
}
