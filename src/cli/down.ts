/** `faas down`: stops the platform that `faas up` runs on this machine, and waits until it has. */
import { Command } from 'commander'
import { readConfig } from '../daemon/config.ts'
import { findSupervisor } from '../daemon/supervisor.ts'
import { eventually } from '../host/eventually.ts'
import { FaasError } from '../values/errors.ts'
import { type CliContext, printResult } from './context.ts'
import { requireRoot } from './up.ts'

/** Longer than faasd waits for requests in flight and the supervisor for faasd. */
const stopTimeoutMs = 45_000

export function downCommand(context: CliContext): Command {
  const command = new Command('down').description('stop the platform that `faas up` runs here')
  return command.action(async () => {
    requireRoot('faas down')
    const { runDirectory } = readConfig(context.env)
    const pid = await findSupervisor(runDirectory)
    if (pid === undefined) {
      throw new FaasError('NOT_RUNNING', 'no `faas up` runs on this machine', {
        hint: 'where systemd runs the platform: systemctl stop faasd coredns wg-quick@wg0',
      })
    }
    process.kill(pid, 'SIGTERM')
    const stillThere = async (): Promise<void> => {
      if ((await findSupervisor(runDirectory)) !== undefined) throw new Error('it still runs')
    }
    await eventually('`faas up` to stop', stillThere, { timeoutMs: stopTimeoutMs })
    printResult(context, command, { stopped: pid }, () => 'stopped')
  })
}
