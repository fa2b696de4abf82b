/**
 * The house rules of the source that no linter knows: the order of rooms (docs/ARCHITECTURE.md), no barrels, no cycles, the
 * native library in one room, the environment read by programs only. Reads the sources as text; needs no root.
 */
import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'

/** Top to bottom: a file imports only from its own room and from rooms below it. */
const rooms = [
  'cli',
  'daemon',
  'api',
  'requests',
  'functions',
  'peers',
  'contracts',
  'images',
  'runtime',
  'net',
  'telemetry',
  'host',
  'values',
]
/** Each drives programs of its own and knows nothing of the others. */
const drivers = ['images', 'runtime', 'net']

interface SourceImport {
  readonly target: string
  readonly typeOnly: boolean
}

const root = dirname(import.meta.dirname)
const sources = globSync('src/**/*.ts', { cwd: root }).filter((path) => !path.endsWith('.test.ts'))
const text = new Map(sources.map((path) => [path, readFileSync(join(root, path), 'utf8')]))
const imports = new Map(sources.map((path) => [path, importsOf(path)]))

function importsOf(path: string): SourceImport[] {
  const found: SourceImport[] = []
  const pattern =
    /^\s*(?:import|export)\s+(type\s)?[^'"]*?\bfrom\s+['"]([^'"]+)['"]|\bimport\(?\s*['"]([^'"]+)['"]/gm
  for (const match of (text.get(path) ?? '').matchAll(pattern)) {
    found.push({ target: match[2] ?? match[3] ?? '', typeOnly: match[1] !== undefined })
  }
  return found
}

const roomOf = (path: string) => path.split('/')[1] ?? ''
const resolve = (from: string, target: string) => normalize(join(dirname(from), target))
const localImports = (path: string) =>
  (imports.get(path) ?? [])
    .filter(({ target }) => target.startsWith('.'))
    .map(({ target, typeOnly }) => ({ path: resolve(path, target), typeOnly }))

test('every source lies in a room, and every import in the source is of the source and exists', () => {
  for (const path of sources) {
    assert.ok(rooms.includes(roomOf(path)), `${path} lies in no room`)
    for (const target of localImports(path)) {
      if (target.path === 'package.json') continue
      assert.ok(target.path.startsWith('src/'), `${path} imports ${target.path}`)
      assert.ok(existsSync(join(root, target.path)), `${path} imports ${target.path}, which is not there`)
    }
  }
})

test('a file imports only from its own room and the rooms below, and no driver from another', () => {
  const wrong: string[] = []
  for (const path of sources) {
    for (const target of localImports(path)) {
      if (target.path === 'package.json') continue
      const [from, to] = [roomOf(path), roomOf(target.path)]
      const upwards = rooms.indexOf(to) < rooms.indexOf(from)
      const sideways = from !== to && drivers.includes(from) && drivers.includes(to)
      if (upwards || sideways) wrong.push(`${path} → ${target.path}`)
    }
  }
  assert.deepEqual(wrong, [])
})

test('no file only passes on what others export, and none is called index.ts', () => {
  for (const [path, source] of text) {
    assert.ok(!path.endsWith('/index.ts'), path)
    assert.doesNotMatch(source, /^export\s+\*\s+from/m, `${path} is a barrel`)
  }
})

test('no import leads in a circle', () => {
  const done = new Set<string>()
  const visit = (path: string, trail: readonly string[]): void => {
    assert.ok(!trail.includes(path), `a circle: ${[...trail.slice(trail.indexOf(path)), path].join(' → ')}`)
    if (done.has(path)) return
    for (const target of localImports(path)) if (!target.typeOnly) visit(target.path, [...trail, path])
    done.add(path)
  }
  for (const path of sources) visit(path, [])
})

test('native calls are made in src/host alone', () => {
  for (const path of sources) {
    const native = (imports.get(path) ?? []).some(({ target }) => target === 'koffi')
    assert.ok(!native || roomOf(path) === 'host', `${path} imports koffi`)
  }
})

test('the environment is read by the programs alone', () => {
  for (const [path, source] of text) {
    if (roomOf(path) === 'cli' || roomOf(path) === 'daemon') continue
    const code = source.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    assert.doesNotMatch(code, /process\.env\b/, `${path} reads the environment`)
  }
})

test('no file has grown past 400 lines', () => {
  for (const [path, source] of text) {
    const lines = source.split('\n').length
    assert.ok(lines <= 400, `${path} has ${lines} lines`)
  }
})
