import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ErrorCode } from '../values/errors.ts'
import type { ImageConfig } from './image.ts'
import { parseImageConfig } from './image-config.ts'

const layer = `sha256:${'a'.repeat(64)}`
const bounds = { architecture: 'amd64', maxLayers: 3 }

const parse = (config: unknown, more: object = {}): ImageConfig =>
  parseImageConfig(
    Buffer.from(
      JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { diff_ids: [layer] }, config, ...more }),
    ),
    bounds,
  ).config

test('parseImageConfig() fills in every default', () => {
  const expected = {
    entrypoint: [],
    cmd: [],
    env: [],
    workingDir: '/',
    user: '',
    exposedPorts: [],
    volumes: [],
    stopSignal: 'SIGTERM',
    architecture: 'amd64',
    os: 'linux',
  }
  const nothing = { Cmd: null, Entrypoint: null, Env: null, WorkingDir: null, User: null, ExposedPorts: null }
  for (const config of [undefined, null, {}, nothing]) assert.deepEqual(parse(config), expected)
})

test('parseImageConfig() reads what an image asks for', () => {
  const config = parse({
    Entrypoint: ['/usr/bin/python3'],
    Cmd: ['-u', 'main.py'],
    Env: ['A=1', 'B=', 'C=x=y', 'no value', '=nothing'],
    WorkingDir: '/srv//app/',
    User: 'app:app',
    ExposedPorts: {
      '80': {},
      '8080/tcp': {},
      '53/udp': {},
      '1-5/tcp': {},
      '0/tcp': {},
      '99999': {},
      '9/sctp': {},
    },
    Volumes: { '/data': {}, '../x': {}, '/a/../b': {} },
    StopSignal: 'SIGINT',
  })
  assert.deepEqual(config.entrypoint, ['/usr/bin/python3'])
  assert.deepEqual(config.cmd, ['-u', 'main.py'])
  assert.deepEqual(config.env, ['A=1', 'B=', 'C=x=y'])
  assert.equal(config.workingDir, '/srv/app')
  assert.equal(config.user, 'app:app')
  assert.deepEqual(config.exposedPorts, [
    { port: 80, protocol: 'tcp' },
    { port: 8080, protocol: 'tcp' },
    { port: 53, protocol: 'udp' },
  ])
  assert.deepEqual(config.volumes, ['/data', '/b'])
  assert.equal(config.stopSignal, 'SIGINT')
})

test('parseImageConfig() takes a command that is one string as a shell command', () => {
  assert.deepEqual(parse({ Cmd: 'echo $HOME' }).cmd, ['/bin/sh', '-c', 'echo $HOME'])
  assert.deepEqual(parse({ Entrypoint: 'run' }).entrypoint, ['/bin/sh', '-c', 'run'])
  assert.deepEqual(parse({ Cmd: '' }).cmd, [])
  assert.equal(parse({ Cmd: Array.from({ length: 10_000 }, () => 'x') }).cmd.length, 10_000)
})

test('parseImageConfig() makes a working directory absolute and keeps it within the root', () => {
  const cases = { app: '/app', '/../../x': '/x', '//a/./b/..': '/a', '': '/', '/': '/' }
  for (const [text, path] of Object.entries(cases)) assert.equal(parse({ WorkingDir: text }).workingDir, path)
})

const refused: [what: string, config: unknown, more: object, code: ErrorCode][] = [
  ['a zero byte in a command', { Cmd: ['a\0b'] }, {}, 'IMAGE_CONFIG_INVALID'],
  ['a zero byte in the environment', { Env: ['A=\0'] }, {}, 'IMAGE_CONFIG_INVALID'],
  ['a zero byte in the user', { User: '\0' }, {}, 'IMAGE_CONFIG_INVALID'],
  ['a command that is a number', { Cmd: 1 }, {}, 'IMAGE_CONFIG_INVALID'],
  ['a command with a number', { Cmd: ['a', 1] }, {}, 'IMAGE_CONFIG_INVALID'],
  ['2 MB of environment', { Env: [`A=${'x'.repeat(2_000_000)}`] }, {}, 'IMAGE_CONFIG_INVALID'],
  ['a working directory in /proc', { WorkingDir: '/proc/self/fd/7/../..' }, {}, 'IMAGE_CONFIG_INVALID'],
  ['a working directory that leads to /proc', { WorkingDir: '/a/../proc/1' }, {}, 'IMAGE_CONFIG_INVALID'],
  ['a stop signal that is none', { StopSignal: 'kill me' }, {}, 'IMAGE_CONFIG_INVALID'],
  ['another machine', {}, { architecture: 'arm64' }, 'IMAGE_PLATFORM_UNSUPPORTED'],
  ['another system', {}, { os: 'windows' }, 'IMAGE_PLATFORM_UNSUPPORTED'],
  ['no layers', {}, { rootfs: { diff_ids: [] } }, 'IMAGE_CONFIG_INVALID'],
  ['no rootfs', {}, { rootfs: undefined }, 'IMAGE_CONFIG_INVALID'],
  ['a diff ID that is none', {}, { rootfs: { diff_ids: ['sha256:../../etc'] } }, 'ARCHIVE_INVALID'],
  ['too many layers', {}, { rootfs: { diff_ids: [layer, layer, layer, layer] } }, 'IMAGE_LAYER_INVALID'],
]

for (const [what, config, more, code] of refused) {
  test(`parseImageConfig() refuses ${what}`, () => {
    assert.throws(() => parse(config, more), { code })
  })
}

test('parseImageConfig() refuses what is no JSON of the right form', () => {
  for (const text of ['', 'null', '[]', '"x"', '{', '{}', '\xff']) {
    assert.throws(() => parseImageConfig(Buffer.from(text, 'latin1'), bounds), {
      code: 'IMAGE_CONFIG_INVALID',
    })
  }
})
