/** `faas describe NAME`: everything about a function, with its counters. */
import { Command } from 'commander'
import type { FunctionDetail, FunctionStats } from '../api/answers.ts'
import { type CliContext, printResult } from './context.ts'
import { renderArgv, renderBytes, renderPairs } from './text.ts'

export function describeCommand(context: CliContext): Command {
  const command = new Command('describe')
    .description('show everything about a function')
    .argument('<name>', 'name of the function')
  return command.action(async (name: string) => {
    const client = context.createClient()
    const detail = await client.call('describe', { name })
    const stats = await client.call('stats', { name })
    printResult(context, command, { ...detail, stats }, () => renderDetail(detail, stats))
  })
}

function renderDetail(
  detail: FunctionDetail,
  { connections, standbys, path, memory_bytes, cpu_ms }: FunctionStats,
): string {
  const { limits } = detail
  return renderPairs([
    ['name', detail.name],
    ['address', detail.ip],
    ['url', detail.url],
    ['ports', detail.ports.map(({ port, target }) => `${port}:${target}`).join(' ')],
    ['state', `${detail.state}, ${detail.instances} of at most ${detail.max_instances} instances`],
    ['contract', detail.contract],
    ...(detail.contract === 'listen' ? [['path', path] as const] : []),
    ...(detail.contract === 'fd' ? [['standbys', renderStandbys(detail, standbys)] as const] : []),
    ['version', String(detail.version)],
    ['image', detail.image],
    ['rootfs', detail.rootfs],
    ['command', renderArgv(detail.cmd)],
    ['directory', detail.working_dir],
    ['user', detail.user],
    ['variables', detail.env.join(' ')],
    ['memory', renderBytes(limits.memory_bytes)],
    ['cpu', `${limits.cpu_millis / 1000} cores`],
    ['pids', String(limits.pids)],
    ['/tmp', renderBytes(limits.tmp_bytes)],
    ['time limits', renderTimes(detail)],
    ...(detail.health === null ? [] : [['health', detail.health] as const]),
    ['created', detail.created],
    ['updated', detail.updated],
    // Those of a server go past us: only the kernel counts them.
    ...(detail.contract === 'fd' ? [['connections', renderConnections(connections)] as const] : []),
    [
      'in use',
      `${memory_bytes === null ? 'unknown' : renderBytes(memory_bytes)} memory, ${cpu_ms ?? 'unknown'} ms of CPU time`,
    ],
  ])
}

const renderTimes = ({ contract, timeouts }: FunctionDetail): string =>
  contract === 'fd'
    ? `connect ${timeouts.connect_ms} ms, total ${timeouts.total_ms} ms, queue ${timeouts.queue_ms} ms`
    : `listen ${timeouts.connect_ms} ms, pause ${timeouts.pause_ms} ms, idle ${timeouts.idle_ms} ms`

const renderConnections = ({ accepted, passed, refused, failed }: FunctionStats['connections']): string =>
  `${accepted} accepted, ${passed} passed, ${refused} refused, ${failed} failed`

function renderStandbys({ standby, reuse }: FunctionDetail, waiting: number): string {
  const wanted = standby === 'demand' ? 'by demand' : `of ${standby} at any time`
  return `${waiting} waiting, ${wanted}${reuse ? '; instances are reused' : ''}`
}
