/** `faas status`: how the platform is. Ends with 1 when functions do not answer. */
import { Command } from 'commander'
import { FaasError } from '../values/errors.ts'
import { type CliContext, printResult } from './context.ts'
import { harmless, paint, renderTable } from './text.ts'

const colours = { ok: 'green', degraded: 'yellow', failing: 'red' } as const

export function statusCommand(context: CliContext): Command {
  const command = new Command('status').description('show how the platform is')
  return command.action(async () => {
    const client = context.createClient()
    const health = await client.call('health', {})
    printResult(context, command, { server: client.server, ...health }, () => {
      const rows = Object.entries(health.checks).map(([name, { status, message }]) => [
        name,
        status,
        harmless(message),
      ])
      const overall = paint(context.stdout, context.env, colours[health.status], health.status)
      return `${renderTable(['CHECK', 'STATUS', 'MESSAGE'], rows)}\nfaasd at ${client.server}: ${overall}`
    })
    if (health.status !== 'failing') return
    throw new FaasError('NOT_READY', 'the platform does not answer for its functions', {
      hint: 'see the checks above, and the log of faasd',
    })
  })
}
