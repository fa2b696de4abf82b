/** docs/cli.md and the completion scripts, held to the commands themselves. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import type { Command } from 'commander'
import { systemClock } from '../host/clock.ts'
import { exec } from '../host/exec.ts'
import type { CliContext } from './context.ts'
import { downCommand } from './down.ts'
import { exitCodes } from './exit-codes.ts'
import { createProgram } from './program.ts'
import { run } from './testing.ts'
import { upCommand } from './up.ts'
import { vpnCommand } from './vpn/vpn.ts'

const others = (context: CliContext): Command[] => [
  upCommand(context),
  downCommand(context),
  vpnCommand(context, { exec, clock: systemClock, isRoot: false, hostname: hostname() }),
]

function wholeProgram(): Command {
  const context = {
    stdin: new PassThrough(),
    stdout: new PassThrough(),
    stderr: new PassThrough(),
    env: {},
    version: '0',
    signal: new AbortController().signal,
  } as unknown as CliContext
  return createProgram({ context, createTransport: () => assert.fail(), more: others(context) })
}

function* commandsOf(
  command: Command,
  path: readonly string[] = [],
): Generator<{ path: string; command: Command }> {
  for (const child of command.commands) {
    const childPath = [...path, child.name()]
    yield { path: childPath.join(' '), command: child }
    yield* commandsOf(child, childPath)
  }
}

const text = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8')

test('docs/cli.md names every command and alias with its options, and every exit code', () => {
  for (const { path, command } of commandsOf(wholeProgram())) {
    assert.ok(text.includes(`faas ${path}`), `faas ${path}`)
    for (const alias of command.aliases())
      assert.match(text, new RegExp(`\`(faas )?${alias}\``), `faas ${path}: ${alias}`)
    for (const { long } of command.options) assert.ok(long && text.includes(long), `faas ${path} ${long}`)
  }
  for (const { code, meaning } of Object.values(exitCodes))
    assert.ok(text.includes(`| ${code} | ${meaning} |`), meaning)
})

test('docs/cli.md names no command and no option that is not there', () => {
  const commands = new Set([...commandsOf(wholeProgram())].map(({ path }) => path))
  for (const [, path] of text.matchAll(/`faas ((?:vpn )?[a-z][a-z-]*)/g)) {
    assert.ok(path === 'help' || commands.has(path ?? ''), `faas ${path}`)
  }
  const options = new Set(
    [...commandsOf(wholeProgram())].flatMap(({ command }) => command.options.map(({ long }) => long)),
  )
  for (const [, option] of text.matchAll(/`[^`]*?(--[a-z][a-z-]+)/g)) {
    assert.ok(options.has(option ?? '') || ['--help', '--version'].includes(option ?? ''), option)
  }
})

const completionOf = async (shell: string): Promise<string> =>
  (await run(['completion', shell], { host: 'unix:///nowhere', more: others })).stdout

test('the completion script of bash completes commands, their commands and options', async () => {
  const script = await completionOf('bash')
  const complete = (words: readonly string[]): string[] => {
    const ask = `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _faas; printf '%s\\n' "\${COMPREPLY[@]}"`
    const { stdout, stderr } = spawnSync('bash', ['-c', ask, 'bash', ...words], { encoding: 'utf8' })
    assert.equal(stderr, '')
    return stdout.split('\n').filter((word) => word !== '')
  }
  assert.deepEqual(complete(['faas', 'l']), ['list', 'logs'])
  assert.deepEqual(complete(['faas', '--json', 'vpn', 'in']), ['invite'])
  assert.deepEqual(complete(['faas', 'logs', '--fo']), ['--follow'])
  assert.deepEqual(complete(['faas', 'new', 'one', '--mem']), ['--memory'])
  assert.ok(!complete(['faas', '']).includes('dial-stdio'))
})

for (const [shell, check] of [
  ['zsh', ['-n']],
  ['fish', ['--no-execute']],
] as const) {
  const isMissing = spawnSync(shell, ['--version']).error !== undefined
  test(`the completion script of ${shell} is one`, { skip: isMissing && `needs ${shell}` }, async () => {
    const { stderr, status } = spawnSync(shell, [...check, '/dev/stdin'], {
      input: await completionOf(shell),
      encoding: 'utf8',
    })
    assert.equal(stderr, '')
    assert.equal(status, 0)
  })
}
