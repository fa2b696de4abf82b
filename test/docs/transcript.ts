/**
 * Commands in a document, with the output that it states for them. In a fenced block that begins with ```console, a line
 * `server# COMMAND` or `device# COMMAND` is a command (a `\` at its end continues it), and the lines up to the next command
 * are what it prints. `…` in such a line stands for any text, a line of nothing but `…` for any lines.
 */

import { isIPv6 } from 'node:net'
import { parseIpv6 } from '../../src/values/ipv6.ts'

export type MachineName = 'server' | 'device'

export interface Step {
  readonly machine: MachineName
  readonly command: string
  /** Empty where the document states nothing. */
  readonly expected: readonly string[]
  /** Where the command stands in the document, from 1. */
  readonly line: number
}

const prompt = /^(server|device)# (.*)$/

/** The steps of a Markdown document, in order. Throws for a console block that does not begin with a command. */
export function parseSteps(markdown: string): Step[] {
  const steps: { machine: MachineName; command: string; expected: string[]; line: number }[] = []
  let inBlock = false
  let current: (typeof steps)[number] | undefined
  let continues = false
  for (const [index, text] of markdown.split('\n').entries()) {
    if (!inBlock) {
      inBlock = text === '```console'
      current = undefined
    } else if (text === '```') {
      inBlock = false
    } else if (current && continues) {
      current.command += `\n${text}`
      continues = text.endsWith('\\')
    } else {
      const [, machine, command] = prompt.exec(text) ?? []
      if (machine !== undefined && command !== undefined) {
        current = { machine: machine as MachineName, command, expected: [], line: index + 1 }
        steps.push(current)
        continues = command.endsWith('\\')
      } else if (current) current.expected.push(text)
      else throw new Error(`line ${index + 1}: output before any command`)
    }
  }
  return steps
}

const anything = '…'

/**
 * Whether a program's output is what was expected of it. Space at the ends of lines and of the whole does not count, nor
 * in which form an IPv6 address is written.
 */
export function isExpected(expected: readonly string[], output: string): boolean {
  const lines = expected.map((line) =>
    line.trim() === anything
      ? '(?:[^\\n]*\\n)*?'
      : `${canonical(line.trimEnd()).split(anything).map(RegExp.escape).join('[^\\n]*')}\\n`,
  )
  const text = `${canonical(output)
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
    .replace(/^\n+|\n+$/g, '')}\n`
  return new RegExp(`^${lines.join('')}$`).test(text)
}

/** Every IPv6 address in its canonical form (RFC 5952). */
const canonical = (text: string): string =>
  text.replace(/[0-9a-f:]{3,}/gi, (word) => (isIPv6(word) ? parseIpv6(word) : word))
