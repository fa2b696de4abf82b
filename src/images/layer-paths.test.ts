import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LayerLinks, partsOf } from './layer-paths.ts'

const resolve = (links: Record<string, string>, path: string): string => {
  const layer = new LayerLinks(100)
  for (const [from, to] of Object.entries(links)) layer.set(from, to)
  return layer.resolve(partsOf(path))
}

const cases: [links: Record<string, string>, path: string, resolved: string][] = [
  [{}, 'a/b/c', 'a/b/c'],
  [{}, '/', ''],
  [{}, './/a/./b/', 'a/b'],
  [{ a: 'x' }, 'a', 'a'],
  [{ a: 'x' }, 'a/b', 'x/b'],
  [{ a: '/x/y' }, 'a/b', 'x/y/b'],
  [{ a: '/' }, 'a/b', 'b'],
  [{ a: '../../..' }, 'a/b', 'b'],
  [{ 'd/a': '..' }, 'd/a/b', 'b'],
  [{ 'd/a': '../e/./f//g' }, 'd/a/b', 'e/f/g/b'],
  [{ a: 'b', b: 'c', c: 'd' }, 'a/x', 'd/x'],
  [{ a: 'b/up', 'b/up': '..' }, 'a/x', 'x'],
  [{ a: 'a2', 'a2/b': '/z' }, 'a/b/c', 'z/c'],
]

for (const [links, path, resolved] of cases) {
  test(`LayerLinks.resolve() of ${path} with ${JSON.stringify(links)} is ${JSON.stringify(resolved)}`, () => {
    assert.equal(resolve(links, path), resolved)
  })
}

test('LayerLinks.resolve() refuses loops and paths that grow beyond bounds', () => {
  assert.throws(() => resolve({ a: 'b', b: 'a' }, 'a/x'), { code: 'IMAGE_LAYER_INVALID' })
  assert.throws(() => resolve({ a: 'a' }, 'a/x'), { code: 'IMAGE_LAYER_INVALID' })
  const part = 'p'.repeat(250)
  const long = Array.from({ length: 14 }, () => part).join('/')
  assert.throws(() => resolve({ a: long }, `a/${part}/${part}/x`), { code: 'IMAGE_LAYER_INVALID' })
})

test('LayerLinks.resolve() goes by the links as they are now', () => {
  const links = new LayerLinks(100)
  assert.equal(links.resolve(['a', 'b']), 'a/b')
  links.set('a', 'x')
  assert.equal(links.resolve(['a', 'b']), 'x/b')
  links.delete('a')
  assert.equal(links.resolve(['a', 'b']), 'a/b')
})

test('LayerLinks remembers no more links than it may', () => {
  const links = new LayerLinks(2)
  links.set('a', 'x')
  links.set('b', 'x')
  assert.throws(() => links.set('c', 'x'), { code: 'IMAGE_TOO_LARGE' })
})

test('partsOf() refuses "..", parts of more than 255 bytes and paths that are too long', () => {
  for (const name of ['..', 'a/..', '../a', 'x'.repeat(256), 'x/'.repeat(2000)]) {
    assert.throws(() => partsOf(name), { code: 'IMAGE_LAYER_INVALID' })
  }
  assert.deepEqual(partsOf('...'), ['...'])
})
