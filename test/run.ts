/**
 * Runs the whole suite: `node test/run.ts [--only check|unit|integration] [FILE…]`.
 *
 * - check: types, format, lint, unused code, order of imports. One tool, one result.
 * - unit: src/**\/*.test.ts, no root, several files at a time.
 * - integration: test/**\/*.test.ts, as root, one file at a time, because they share the machine's clock and cores.
 *
 * Ends with what failed, what was skipped and why, and one line `N passed, N failed, N skipped`. Exit code 1 when anything
 * failed, or when nothing ran. `fresh` as the only word runs test/fresh/, which is not part of the suite (minutes).
 */
import { spawn } from 'node:child_process'
import { globSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { run, type test } from 'node:test'
import { inspect } from 'node:util'

interface Outcome {
  passed: number
  readonly failed: string[]
  readonly skipped: string[]
}

const root = dirname(import.meta.dirname)
/** A file that takes longer is ended and counts as failed. */
const unitLimitMs = 60_000
const integrationLimitMs = 300_000
const freshLimitMs = 1_800_000

const checks: readonly (readonly [string, ...string[]])[] = [
  ['tsc', '-p', '.'],
  ['biome', 'ci', '--colors=off'],
  ['oxlint', '--type-aware', 'src', 'test', 'packaging'],
  ['knip', '--no-progress'],
]

async function main(args: readonly string[]): Promise<number> {
  process.chdir(root)
  const only = args[0] === '--only' ? args[1] : undefined
  const files = only === undefined ? args : args.slice(2)
  const outcome: Outcome = { passed: 0, failed: [], skipped: [] }
  const begin = performance.now()
  if (files.length > 0) {
    await runTests(files[0] === 'fresh' ? globSync('test/fresh/*.ts') : files, 1, freshLimitMs, outcome)
  } else {
    const wanted = (part: string) => only === undefined || only === part
    if (wanted('check')) await runChecks(outcome)
    if (wanted('check')) await runTests(['test/rooms.test.ts'], 1, unitLimitMs, outcome)
    if (wanted('unit')) {
      title('Unit tests')
      await runTests(sorted('src/**/*.test.ts'), availableParallelism(), unitLimitMs, outcome)
    }
    if (wanted('integration')) {
      title('Integration tests')
      const integration = sorted('test/**/*.test.ts').filter((file) => file !== 'test/rooms.test.ts')
      await runTests(integration, 1, integrationLimitMs, outcome)
    }
  }
  return summarize(outcome, performance.now() - begin)
}

const sorted = (pattern: string) => globSync(pattern).toSorted()
const title = (text: string) => process.stdout.write(`\n── ${text}\n`)

async function runChecks(outcome: Outcome): Promise<void> {
  title('Check')
  for (const [tool, ...args] of checks) {
    const begin = performance.now()
    const { code, output } = await runTool(join(root, 'node_modules/.bin', tool), args)
    const took = `(${Math.round(performance.now() - begin)} ms)`
    process.stdout.write(`${code === 0 ? '✔' : '✖'} ${tool} ${took}\n`)
    if (code === 0) outcome.passed += 1
    else {
      process.stdout.write(output)
      outcome.failed.push(`check: ${tool}`)
    }
  }
}

function runTool(program: string, args: readonly string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (part: Buffer) => (output += part.toString()))
    child.once('error', reject)
    child.once('close', (code) => resolve({ code: code ?? 1, output }))
  })
}

/** Runs files, each for at most `limitMs`, and prints what they find as it comes. */
async function runTests(
  files: readonly string[],
  concurrency: number,
  limitMs: number,
  outcome: Outcome,
): Promise<void> {
  const waiting = [...files]
  const work = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift())
      await runFile(file, limitMs, outcome, concurrency > 1)
  }
  await Promise.all(Array.from({ length: concurrency }, work))
}

/** With `together`, prints all of a file at once, so that files at the same time do not mix. */
async function runFile(file: string, limitMs: number, outcome: Outcome, together: boolean): Promise<void> {
  const begin = performance.now()
  const lines: string[] = []
  // The signal and not only the limit of each test, because a file can also hang when its tests have ended.
  const limit = AbortSignal.timeout(limitMs)
  const events = run({ files: [join(root, file)], signal: limit, timeout: limitMs, isolation: 'process' })
  const print = (text: string) => process.stdout.write(`${text.replaceAll(/^/gm, '  ')}\n`)
  const show = (text: string) => void (together ? lines.push(text.trimEnd()) : print(text.trimEnd()))
  if (!together) process.stdout.write(`${file}\n`)
  let count = 0
  events.on('test:pass', (data) => {
    count += 1
    record(file, data, outcome, true, show)
  })
  events.on('test:fail', (data) => {
    count += 1
    record(file, data, outcome, false, show)
  })
  events.on('test:stdout', ({ message }) => show(message))
  events.on('test:stderr', ({ message }) => show(message))
  for await (const _event of events);
  const took = `${((performance.now() - begin) / 1000).toFixed(1)} s`
  if (limit.aborted) show(`✖ ended after ${limitMs / 1000} s`)
  else if (count === 0) outcome.failed.push(`${file}: no test ran`)
  if (together) process.stdout.write(`${file} (${took})\n`)
  for (const line of lines) print(line)
  if (!together) print(took)
}

type Result = test.EventData.TestPass | test.EventData.TestFail

/** Counts tests and not the suites and files around them, unless such a one failed by itself. */
function record(
  file: string,
  data: Result,
  outcome: Outcome,
  passed: boolean,
  show: (text: string) => void,
): void {
  const name = `${'  '.repeat(data.nesting)}${data.name}`
  if (data.skip !== undefined && data.skip !== false) {
    const why = typeof data.skip === 'string' && data.skip !== '' ? data.skip : 'no reason given'
    outcome.skipped.push(`${file}: ${data.name} (${why})`)
    show(`﹣ ${name} (skipped: ${why})`)
  } else if (passed) {
    if (data.details.type !== 'suite') outcome.passed += 1
    show(`✔ ${name} (${Math.round(data.details.duration_ms)} ms)`)
  } else {
    const error = 'error' in data.details ? data.details.error : undefined
    if ((error as { failureType?: string } | undefined)?.failureType === 'subtestsFailed') return
    outcome.failed.push(`${file}: ${data.name}`)
    show(`✖ ${name}\n${inspect(error?.cause ?? error)}`)
  }
}

function summarize(outcome: Outcome, tookMs: number): number {
  const list = (heading: string, lines: readonly string[]) => {
    if (lines.length > 0)
      process.stdout.write(`\n${heading}\n${lines.map((line) => `  ${line}`).join('\n')}\n`)
  }
  list('Skipped:', outcome.skipped)
  list('Failed:', outcome.failed)
  const { passed, failed, skipped } = outcome
  process.stdout.write(`\ntook ${Math.round(tookMs / 1000)} s\n`)
  process.stdout.write(`${passed} passed, ${failed.length} failed, ${skipped.length} skipped\n`)
  return failed.length > 0 || passed === 0 ? 1 : 0
}

process.exitCode = await main(process.argv.slice(2))
