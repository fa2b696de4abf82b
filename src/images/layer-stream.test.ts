/** What leaves {@link renderLayer} is safe to unpack, whatever went in: tried with layers made at random. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FaasError } from '../values/errors.ts'
import { ByteReader } from './byte-reader.ts'
import { renderLayer, surveyLayer } from './layer-stream.ts'
import { type TarEntry, TarReader } from './tar-reader.ts'
import { endOfArchive, paddingOf, renderTarHeader, type WrittenEntry } from './tar-writer.ts'

const bounds = { maxEntries: 1000, maxLinks: 100, maxMarks: 100, maxFileBytes: 100_000 }

async function* whole(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

const layerOf = (entries: readonly WrittenEntry[]): Buffer =>
  Buffer.concat([
    ...entries.flatMap((entry) => {
      const size = entry.kind === 'file' ? 3 : 0
      return [renderTarHeader({ ...entry, size }), Buffer.alloc(size, 'x'), paddingOf(size)]
    }),
    endOfArchive,
  ])

/** The entries of the rendered layer; undefined when it is refused. */
async function render(layer: Uint8Array): Promise<TarEntry[] | undefined> {
  const written: Buffer[] = []
  try {
    const survey = await surveyLayer(whole(layer), bounds)
    await renderLayer(whole(layer), survey, bounds, async (bytes) => void written.push(Buffer.from(bytes)))
  } catch (error) {
    assert.ok(error instanceof FaasError, String(error))
    assert.ok(['IMAGE_LAYER_INVALID', 'IMAGE_TOO_LARGE'].includes(error.code), error.message)
    return undefined
  }
  const tar = new TarReader(new ByteReader(whole(Buffer.concat(written))))
  const entries: TarEntry[] = []
  for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) entries.push(entry)
  assert.equal(tar.ended, true)
  return entries
}

const part = fc.constantFrom('a', 'b', 'c', '..', '.', '', '.wh.a', '.wh.b', '.wh..wh..opq', '.wh.', '.wh..')
const path = fc.array(part, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'))
const safePart = fc.constantFrom('a', 'b', 'c', '.wh.a', '.wh.b', '.wh..wh..opq')
const safePath = fc.array(safePart, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'))
const target = fc.oneof(
  path,
  safePath,
  path.map((text) => `/${text}`),
)
const kind = fc.constantFrom<WrittenEntry['kind']>(
  'file',
  'directory',
  'symlink',
  'hardlink',
  'fifo',
  'character device',
)
const entryWith = (name: fc.Arbitrary<string>): fc.Arbitrary<WrittenEntry> =>
  fc.record({
    kind,
    name,
    linkName: target,
    mode: fc.nat(0o7777),
    uid: fc.nat(100_000),
    gid: fc.nat(100_000),
    mtimeSeconds: fc.nat(),
  })
const entries = fc.oneof(
  fc.array(entryWith(path), { maxLength: 6 }),
  fc.array(entryWith(safePath), { maxLength: 12 }),
)

test('renderLayer() writes no name that leads out of the layer or through a link', async () => {
  let accepted = 0
  await fc.assert(
    fc.asyncProperty(entries, async (given) => {
      const rendered = await render(layerOf(given))
      if (rendered === undefined) return
      accepted++
      const links = new Set<string>()
      const check = (name: string) => {
        const parts = name.split('/')
        assert.ok(name === '.' || parts.every((each) => !['', '.', '..'].includes(each)), name)
        parts.slice(0, -1).forEach((_, index) => {
          assert.ok(!links.has(parts.slice(0, index + 1).join('/')), `${name} leads through a link`)
        })
      }
      for (const { kind, name, linkName, mode, uid, gid } of rendered) {
        check(name)
        if (kind === 'hardlink') check(linkName)
        const isLink = kind === 'symlink' || (kind === 'hardlink' && links.has(linkName))
        if (isLink) links.add(name)
        else links.delete(name)
        assert.equal(mode & 0o6000, 0)
        assert.ok(uid <= 65535 && gid <= 65535)
      }
    }),
    { numRuns: 2000 },
  )
  assert.ok(accepted > 200, `only ${accepted} of the layers were accepted`)
})

test('renderLayer() makes a character device of a whiteout and of nothing else', async () => {
  const plain = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0 }
  const rendered = await render(
    layerOf([
      { ...plain, kind: 'character device', name: 'device' },
      { ...plain, kind: 'file', name: 'd/.wh.gone' },
    ]),
  )
  assert.deepEqual(
    rendered?.map(({ kind, name }) => [kind, name]),
    [['character device', 'd/gone']],
  )
})

test('a device that is left out does not make its place safe to write through', async () => {
  const plain = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0 }
  const rendered = await render(
    layerOf([
      { ...plain, kind: 'symlink', name: 'b', linkName: 'a' },
      { ...plain, kind: 'character device', name: 'b' },
      { ...plain, kind: 'file', name: 'b/c' },
    ]),
  )
  assert.deepEqual(
    rendered?.map(({ name }) => name),
    ['b', 'a/c'],
  )
})

test('surveyLayer() and renderLayer() refuse or read a damaged layer, and throw nothing else', async () => {
  const plain = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0 }
  const layer = layerOf([
    { ...plain, kind: 'file', name: 'n'.repeat(200) },
    { ...plain, kind: 'directory', name: 'd', attributes: { 'user.x': 'y' } },
    { ...plain, kind: 'symlink', name: 'l', linkName: 'd' },
    { ...plain, kind: 'file', name: 'l/f' },
  ])
  const damage = fc.array(fc.tuple(fc.nat(layer.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 })
  await fc.assert(
    fc.asyncProperty(damage, fc.nat(layer.length), async (places, length) => {
      const damaged = Buffer.from(layer)
      for (const [at, value] of places) damaged[at] = value
      await render(damaged.subarray(0, Math.max(length, layer.length / 2)))
    }),
    { numRuns: 500 },
  )
})
