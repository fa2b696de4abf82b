/**
 * Images of real servers, as people make them: a server as it is packaged, a few lines of configuration or source, and the
 * entrypoint that its official image has. Programs that are compiled are compiled here, with the machine's compilers.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { ImageConfigInput } from '../images/archive.ts'
import { buildImage, buildPythonImage } from '../images/build.ts'
import type { TarEntry } from '../images/tar.ts'
import { program, readProgram } from './place.ts'

const run = promisify(execFile)
const path = 'PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin'

/** `python3 -m http.server`, which serves a directory. */
export const pythonHttpServer = (version = '1'): Promise<string> =>
  buildImage({
    name: 'python-http',
    base: 'python-ctypes',
    layers: [
      [
        { path: 'srv', type: 'directory' },
        { path: 'srv/index.html', content: `http.server ${version}\n` },
      ],
    ],
    config: {
      Cmd: ['python3', '-m', 'http.server', '--directory', '/srv', '8000'],
      Env: [path, 'PYTHONUNBUFFERED=1'],
      ExposedPorts: { '8000/tcp': {} },
    },
  })

export const asyncioServer = async (): Promise<string> =>
  buildPythonImage({
    name: 'asyncio',
    base: 'python-ctypes',
    handler: await readProgram('asyncio_server.py'),
    user: 'app',
  })

export const nodeServer = async (): Promise<string> =>
  buildImage({
    name: 'node',
    base: 'node',
    layers: [
      [
        { path: 'app', type: 'directory' },
        { path: 'app/server.mjs', content: await readProgram('server.mjs') },
      ],
    ],
    config: { Cmd: ['node', 'server.mjs'], WorkingDir: '/app', User: 'app', Env: [path] },
  })

/** A static program alone in an image, as `FROM scratch` makes it. */
async function scratchImage(name: string, compile: (output: string) => Promise<unknown>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'faasd-compile-'))
  try {
    const output = join(directory, 'server')
    await compile(output)
    const server: TarEntry = { path: 'server', mode: 0o755, content: await readFile(output) }
    return await buildImage({ name, layers: [[server]], config: { Entrypoint: ['/server'] } })
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

export const goServer = (): Promise<string> =>
  scratchImage('go', (output) =>
    run('go', ['build', '-trimpath', '-ldflags', '-s -w', '-o', output, program('server.go')], {
      env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false', GO111MODULE: 'off' },
    }),
  )

export const epollServer = (): Promise<string> =>
  scratchImage('epoll', (output) =>
    run('cc', ['-static', '-O2', '-Wall', '-Werror', '-o', output, program('epoll.c')]),
  )

export async function javaServer(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'faasd-compile-'))
  try {
    await run('javac', ['-d', directory, program('Server.java')])
    const app: TarEntry[] = [
      { path: 'app', type: 'directory' },
      { path: 'app/Server.class', content: await readFile(join(directory, 'Server.class')) },
    ]
    const config = { Cmd: ['/opt/java/bin/java', 'Server'], WorkingDir: '/app' }
    return await buildImage({ name: 'java', base: 'java', layers: [app], config })
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

export interface NginxOptions {
  readonly version?: string
  /** Lines of `listen`. */
  readonly listen?: readonly string[]
  /** Without it nginx cannot make its directories on a read-only root. */
  readonly volumes?: boolean
}

/** nginx as Debian packages it: starts as root, and its workers are www-data. Its only page tells who calls. */
export function nginxServer(options: NginxOptions = {}): Promise<string> {
  const { version = '1', listen = ['80', '[::]:80'], volumes = true } = options
  const site = [
    'server {',
    ...listen.map((line) => `  listen ${line};`),
    `  location / { default_type text/plain; return 200 "nginx ${version} $remote_addr\\n"; }`,
    '}',
  ]
  return buildImage({
    name: 'nginx',
    base: 'nginx',
    layers: [
      [
        { path: 'etc/nginx/sites-enabled/default', content: `${site.join('\n')}\n` },
        // As in the official image: what it logs is what the container prints.
        { path: 'var/log/nginx/access.log', type: 'symlink', target: '/dev/stdout' },
        { path: 'var/log/nginx/error.log', type: 'symlink', target: '/dev/stderr' },
      ],
    ],
    config: {
      Cmd: ['nginx', '-g', 'daemon off;'],
      Env: [path],
      ExposedPorts: { '80/tcp': {} },
      StopSignal: 'SIGQUIT',
      ...(volumes ? { Volumes: { '/var/lib/nginx': {} } } : {}),
    },
  })
}

/** What the entrypoint of the official image does: as root it gives away the volume and goes on as redis. */
const redisEntrypoint = `#!/bin/sh
set -e
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . \\! -user redis -exec chown redis '{}' +
  exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi
exec "$@"
`

export const redisServer = (): Promise<string> =>
  buildImage({
    name: 'redis',
    base: 'redis',
    layers: [
      [
        { path: 'data', type: 'directory' },
        { path: 'usr/local/bin/docker-entrypoint.sh', mode: 0o755, content: redisEntrypoint },
      ],
    ],
    config: {
      Entrypoint: ['docker-entrypoint.sh'],
      // The official image is built with protected mode off: whoever reaches the port may use it.
      Cmd: ['redis-server', '--protected-mode', 'no'],
      Env: [path],
      WorkingDir: '/data',
      Volumes: { '/data': {} },
      ExposedPorts: { '6379/tcp': {} },
    },
  })

/** What the entrypoint of the official image does when its volume is empty. */
const postgresEntrypoint = `#!/bin/sh
set -e
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chown -R postgres "$PGDATA" /var/run/postgresql
  chmod 700 "$PGDATA"
  exec gosu postgres "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --auth=trust --no-sync >/dev/null
  echo 'host all all all trust' >>"$PGDATA/pg_hba.conf"
fi
exec "$@"
`

export const postgresServer = (): Promise<string> =>
  buildImage({
    name: 'postgres',
    base: 'postgres',
    layers: [
      [
        { path: 'var/lib/postgresql/data', type: 'directory' },
        { path: 'usr/local/bin/docker-entrypoint.sh', mode: 0o755, content: postgresEntrypoint },
      ],
    ],
    config: {
      Entrypoint: ['docker-entrypoint.sh'],
      Cmd: ['postgres', '-c', 'listen_addresses=*'],
      Env: [
        'PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        'PGDATA=/var/lib/postgresql/data',
      ],
      Volumes: { '/var/lib/postgresql/data': {} },
      ExposedPorts: { '5432/tcp': {} },
      StopSignal: 'SIGINT',
    },
  })

/** A Python program that is told its mode by a variable, so that one image serves all. */
const modeImage = async (source: string, config: ImageConfigInput = {}): Promise<string> =>
  buildImage({
    name: 'modes',
    base: 'python',
    layers: [
      [
        { path: 'app', type: 'directory' },
        { path: 'app/main.py', content: await readProgram(source) },
      ],
    ],
    config: { Cmd: ['python3', '/app/main.py'], Env: [path], ...config },
  })

/** programs/binder.py: `MODE` says how it binds. */
export const binderImage = (config?: ImageConfigInput): Promise<string> => modeImage('binder.py', config)

/** programs/bad.py: `MODE` says what it does wrong. */
export const badImage = (): Promise<string> => modeImage('bad.py')
