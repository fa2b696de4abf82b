import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ByteReader } from './byte-reader.ts'
import { type TarEntry, TarReader } from './tar-reader.ts'
import { endOfArchive, paddingOf, renderTarHeader, type WrittenEntry } from './tar-writer.ts'

async function* inChunks(bytes: Uint8Array, chunkBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes)
}

interface Read extends TarEntry {
  readonly text: string
}

async function readAll(bytes: Uint8Array, chunkBytes = 1000): Promise<{ entries: Read[]; ended: boolean }> {
  const tar = new TarReader(new ByteReader(inChunks(bytes, chunkBytes)))
  const entries: Read[] = []
  for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
    let text = ''
    for (let piece = await tar.content(); piece !== undefined; piece = await tar.content()) {
      text += Buffer.from(piece).toString('latin1')
    }
    entries.push({ ...entry, text })
  }
  return { entries, ended: tar.ended }
}

function written(...entries: (WrittenEntry & { text?: string })[]): Buffer {
  const parts = entries.flatMap(({ text = '', ...entry }) => [
    renderTarHeader({ ...entry, size: text.length }),
    Buffer.from(text, 'latin1'),
    paddingOf(text.length),
  ])
  return Buffer.concat([...parts, endOfArchive])
}

const plain: WrittenEntry = { kind: 'file', name: 'file', mode: 0o644, uid: 1, gid: 2, mtimeSeconds: 3 }

test('TarReader reads back what the writer wrote, in chunks of any size', async () => {
  const archive = written(
    { ...plain, text: 'x'.repeat(700) },
    { ...plain, name: 'l'.repeat(300), text: 'long' },
    { ...plain, kind: 'symlink', name: 's', linkName: `/${'t'.repeat(200)}` },
    { ...plain, kind: 'directory', name: 'd', attributes: { 'user.overlay.opaque': 'y' } },
    { ...plain, kind: 'hardlink', name: 'caf\u00e9', linkName: 'file' },
  )
  for (const chunkBytes of [1, 511, 512, 100_000]) {
    const { entries, ended } = await readAll(archive, chunkBytes)
    assert.equal(ended, true)
    assert.deepEqual(
      entries.map(({ kind, name, linkName, text }) => [kind, name, linkName, text]),
      [
        ['file', 'file', '', 'x'.repeat(700)],
        ['file', 'l'.repeat(300), '', 'long'],
        ['symlink', 's', `/${'t'.repeat(200)}`, ''],
        ['directory', 'd', '', ''],
        ['hardlink', 'caf\u00e9', 'file', ''],
      ],
    )
    assert.deepEqual([entries[0]?.uid, entries[0]?.gid, entries[0]?.mtimeSeconds], [1, 2, 3])
  }
})

for (const format of ['v7', 'ustar', 'oldgnu', 'gnu', 'pax']) {
  test(`TarReader reads what GNU tar writes as ${format}`, async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'faasd-tar-'))
    t.after(() => rmSync(directory, { recursive: true }))
    const long = format === 'v7' ? 'short' : `${'d'.repeat(60)}/${'n'.repeat(90)}`
    execFileSync('mkdir', ['-p', join(directory, long, '..')])
    writeFileSync(join(directory, long), 'content')
    const bytes = execFileSync('tar', [
      `--format=${format}`,
      '--numeric-owner',
      '--owner=7',
      '--group=8',
      '--mtime=@1000000000',
      '-cf',
      '-',
      '-C',
      directory,
      long,
    ])
    const { entries, ended } = await readAll(bytes)
    assert.equal(ended, true)
    assert.deepEqual(
      entries.map(({ kind, name, uid, gid, mtimeSeconds, text }) => [
        kind,
        name,
        uid,
        gid,
        mtimeSeconds,
        text,
      ]),
      [['file', long, 7, 8, 1_000_000_000, 'content']],
    )
  })
}

test('TarReader reads numbers in base 256', async () => {
  const header = renderTarHeader({ ...plain, size: 2 ** 40 })
  const tar = new TarReader(new ByteReader(inChunks(header, 512)))
  assert.equal((await tar.next())?.size, 2 ** 40)
})

/** A header with one field replaced and its checksum made right. */
function forged(at: number, bytes: Uint8Array | string, entry: Partial<WrittenEntry> = {}): Buffer {
  const header = Buffer.from(renderTarHeader({ ...plain, ...entry }))
  Buffer.from(bytes as string, 'latin1').copy(header, at)
  header.fill(' ', 148, 156)
  let sum = 0
  for (const byte of header) sum += byte
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return header
}

const pax = (text: string, type = 'x'): Buffer =>
  Buffer.concat([
    forged(156, type, { name: 'pax', size: text.length }),
    Buffer.from(text, 'latin1'),
    paddingOf(text.length),
  ])

const bad: Record<string, { bytes: Buffer; truncated: boolean }> = {
  'a wrong checksum': { bytes: Buffer.alloc(512, 'x'), truncated: false },
  'a header that is cut': { bytes: written(plain).subarray(0, 300), truncated: true },
  'content that is cut': {
    bytes: written({ ...plain, text: 'x'.repeat(600) }).subarray(0, 1000),
    truncated: true,
  },
  'a size that is no number': { bytes: forged(124, '1x'), truncated: false },
  'a negative size': { bytes: forged(124, Buffer.alloc(12, 0xff)), truncated: false },
  'a size beyond all bounds': {
    bytes: forged(124, Buffer.from([0x80, ...Buffer.alloc(11, 0xff)])),
    truncated: false,
  },
  'a negative pax size': { bytes: Buffer.concat([pax('11 size=-1\n'), written(plain)]), truncated: false },
  'a pax size of 2^63': {
    bytes: Buffer.concat([pax('29 size=9223372036854775808\n'), written(plain)]),
    truncated: false,
  },
  'a pax record that is too long': {
    bytes: Buffer.concat([pax('99 path=x\n'), written(plain)]),
    truncated: false,
  },
  'a pax record of length 0': { bytes: Buffer.concat([pax('0 path=x\n'), written(plain)]), truncated: false },
  'a pax name with a zero byte': {
    bytes: Buffer.concat([pax('12 path=a\0b\n'), written(plain)]),
    truncated: false,
  },
  'a long name of 1 GB': { bytes: forged(156, 'L', { size: 10 ** 9 }), truncated: false },
  'a pax header of 1 GB': { bytes: forged(156, 'x', { size: 10 ** 9 }), truncated: false },
  'extended headers without end': {
    bytes: Buffer.concat(Array.from({ length: 20 }, () => pax('10 path=x\n'))),
    truncated: false,
  },
  'an extended header at the end': {
    bytes: Buffer.concat([pax('10 path=x\n'), endOfArchive]),
    truncated: true,
  },
  'a single zero block': { bytes: Buffer.concat([Buffer.alloc(512), written(plain)]), truncated: false },
}

for (const [what, { bytes, truncated }] of Object.entries(bad)) {
  test(`TarReader refuses ${what}`, async () => {
    await assert.rejects(readAll(bytes), { name: 'TarError', truncated })
  })
}

test('TarReader takes a pax name before a GNU one, and ignores global records', async () => {
  const archive = Buffer.concat([
    pax('15 path=global\n', 'g'),
    pax('12 path=pax\n'),
    written({ ...plain, name: 'g'.repeat(200) }),
  ])
  assert.equal((await readAll(archive)).entries[0]?.name, 'pax')
  const other = Buffer.concat([pax('15 path=global\n', 'g'), written(plain)])
  assert.equal((await readAll(other)).entries[0]?.name, 'file')
})

test('TarReader tells sparse files and unknown types', async () => {
  const archive = Buffer.concat([
    forged(156, 'S'),
    pax('22 GNU.sparse.major=1\n'),
    written(plain).subarray(0, 512),
    forged(156, 'Z'),
    endOfArchive,
  ])
  assert.deepEqual(
    (await readAll(archive)).entries.map(({ kind }) => kind),
    ['sparse file', 'sparse file', 'other'],
  )
})

test('TarReader gives only files content, whatever a header states', async () => {
  const archive = Buffer.concat([forged(156, '1', { size: 512, linkName: 'x' }), written(plain)])
  assert.deepEqual(
    (await readAll(archive)).entries.map(({ kind, size }) => [kind, size]),
    [
      ['hardlink', 0],
      ['file', 0],
    ],
  )
})

test('TarReader says that an archive without an end mark has not ended', async () => {
  assert.equal((await readAll(written(plain).subarray(0, 512))).ended, false)
  assert.equal((await readAll(Buffer.alloc(512))).ended, false)
})
