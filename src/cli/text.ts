/** Text for terminals: tables, amounts, colours where they are wanted, and foreign text made harmless. */
import { styleText } from 'node:util'

type Format = Parameters<typeof styleText>[0]

/** Columns as wide as their widest cell, two spaces apart; nothing trails. */
export function renderTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)))
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** `key  value` lines. */
export function renderPairs(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([key]) => key.length))
  return pairs.map(([key, value]) => `${key.padEnd(width)}  ${value}`.trimEnd()).join('\n')
}

/** Bytes in binary units: `512 MiB`, `1.5 GiB`. */
export function renderBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10))
  const amount = bytes / 2 ** (10 * power)
  return `${Number.isInteger(amount) || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${units[power]}`
}

/** Coloured on a terminal, plain elsewhere and with NO_COLOR. */
export function paint(
  stream: { readonly isTTY?: boolean },
  env: Readonly<Record<string, string | undefined>>,
  format: Format,
  text: string,
): string {
  const isWanted = stream.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb'
  return isWanted ? styleText(format, text, { validateStream: false }) : text
}

/** Foreign text without what steers a terminal: control characters but tab are shown as `\xNN`. */
export const harmless = (text: string): string =>
  text.replace(
    /[\x00-\x08\x0a-\x1f\x7f-\x9f]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  )

/** An argv as one would type it. */
export const renderArgv = (argv: readonly string[]): string =>
  argv
    .map((word) =>
      /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${harmless(word).replaceAll("'", `'\\''`)}'`,
    )
    .join(' ')
