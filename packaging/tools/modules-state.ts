/**
 * `node modules-state.ts CHECKOUT`: exit code 0 when node_modules holds what package-lock.json says, 1 when `npm ci` is
 * needed. Compares npm's own record of what it installed (node_modules/.package-lock.json) with the lock, because a look at
 * every package would take longer. Packages for other platforms are optional and may be absent.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

interface Lock {
  readonly packages: Readonly<Record<string, { readonly version?: string; readonly optional?: boolean }>>
}

const checkout = process.argv[2] ?? '.'

function readLock(path: string): Lock | undefined {
  try {
    return JSON.parse(readFileSync(join(checkout, path), 'utf8')) as Lock
  } catch {
    return undefined
  }
}

const wanted = readLock('package-lock.json')
const installed = readLock('node_modules/.package-lock.json')
const complete =
  wanted !== undefined &&
  installed !== undefined &&
  Object.entries(wanted.packages).every(([path, { version, optional }]) => {
    const found = installed.packages[path]
    return path === '' || (found === undefined ? optional === true : found.version === version)
  })
process.exitCode = complete ? 0 : 1
