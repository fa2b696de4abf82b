/**
 * Base layers of test images, made from Debian packages without a registry and kept in the tools cache: `python` (Python
 * 3.11 with its minimal library, and a shell), `python-ctypes` (with the whole library, for system calls), `busybox` (one
 * static program), and servers as they are packaged: `node` (the Node that runs the tests), `nginx`, `redis`, `postgres`,
 * `java` (a runtime of three modules, where there is a JDK to link it). Needs mmdebstrap and a Debian mirror the first time;
 * a base takes a few seconds then. The largest ones have 140 to 180 MB.
 */
import { execFile } from 'node:child_process'
import { chmod, copyFile, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { cachedDirectory } from '../../packaging/tools/tools.ts'

export type Base = 'python' | 'python-ctypes' | 'busybox' | 'node' | 'nginx' | 'redis' | 'postgres' | 'java'

const run = promisify(execFile)

const passwd = [
  'root:x:0:0:root:/root:/bin/sh',
  'daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin',
  'app:x:1000:1000:app:/app:/bin/sh',
  'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin',
]
const group = ['root:x:0:', 'daemon:x:1:', 'video:x:44:app', 'app:x:1000:', 'nogroup:x:65534:']

/** The user that a package's own script would have made. */
const users: Partial<Readonly<Record<Base, { readonly name: string; readonly id: number }>>> = {
  nginx: { name: 'www-data', id: 33 },
  redis: { name: 'redis', id: 999 },
  postgres: { name: 'postgres', id: 999 },
}

const cacheName = (base: Base): string =>
  `image-base-${base}${base === 'node' ? `-${process.versions.node}` : ''}-1`

/** The path of the base's layer, an uncompressed tar file. The number in the name rises when the recipe changes. */
export async function baseLayer(base: Base, tools: string): Promise<string> {
  const directory = await cachedDirectory(tools, cacheName(base), async (aside) => {
    const tree = join(aside, 'tree')
    await recipes[base](tree)
    await mkdir(join(tree, 'etc'), { recursive: true })
    const user = users[base]
    const passwdLines = user ? [...passwd, `${user.name}:x:${user.id}:${user.id}::/:/bin/sh`] : passwd
    const groupLines = user ? [...group, `${user.name}:x:${user.id}:`] : group
    await writeFile(join(tree, 'etc/passwd'), `${passwdLines.join('\n')}\n`)
    await writeFile(join(tree, 'etc/group'), `${groupLines.join('\n')}\n`)
    for (const name of ['proc', 'dev', 'sys', 'root', 'run'])
      await mkdir(join(tree, name), { recursive: true })
    const options = [
      '--sort=name',
      '--mtime=@0',
      '--owner=0',
      '--group=0',
      '--numeric-owner',
      '--format=posix',
    ]
    const pax = '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime'
    const names = (await readdir(tree)).sort()
    await run('tar', [...options, pax, '-C', tree, '-cf', join(aside, 'layer.tar'), ...names])
    await rm(tree, { recursive: true, force: true })
  })
  return join(directory, 'layer.tar')
}

const recipes: Readonly<Record<Base, (tree: string) => Promise<void>>> = {
  python: (tree) => pythonTree(['python3-minimal', 'dash'], tree),
  'python-ctypes': (tree) => pythonTree(['python3-minimal', 'libpython3.11-stdlib', 'dash'], tree),
  async node(tree) {
    await debianTree(['libstdc++6'], tree)
    await mkdir(join(tree, 'usr/local/bin'), { recursive: true })
    await copyFile(process.execPath, join(tree, 'usr/local/bin/node'))
  },
  nginx: (tree) => debianTree(['nginx'], tree),
  redis: (tree) => debianTree(['redis-server', 'coreutils', 'findutils', 'util-linux'], tree),
  async postgres(tree) {
    await debianTree(['postgresql-15', 'gosu', 'coreutils'], tree)
    await symlink('/run', join(tree, 'var/run'))
    // Only for queries that are worth compiling: 110 MB.
    for (const place of ['usr/lib/llvm-14', `usr/lib/${await triplet(tree)}/libLLVM-14.so.1`])
      await rm(join(tree, place), { recursive: true, force: true })
  },
  async java(tree) {
    await debianTree(['libstdc++6', 'zlib1g'], tree)
    const modules = ['--add-modules', 'java.base,java.logging,jdk.httpserver']
    const options = ['--strip-debug', '--no-header-files', '--no-man-pages', '--compress=2']
    await mkdir(join(tree, 'opt'), { recursive: true })
    await run('jlink', [...modules, ...options, '--output', join(tree, 'opt/java')])
  },
  async busybox(tree) {
    const all = `${tree}-all`
    await extractPackages(['busybox-static'], all)
    await mkdir(join(tree, 'bin'), { recursive: true })
    await run('cp', [join(all, 'bin/busybox'), join(tree, 'bin/busybox')])
    const { stdout } = await run(join(tree, 'bin/busybox'), ['--list'])
    for (const applet of stdout.trim().split('\n'))
      await symlink('busybox', join(tree, 'bin', applet)).catch(ignoreExisting)
    await mkdir(join(tree, 'tmp'))
    await chmod(join(tree, 'tmp'), 0o1777)
    await rm(all, { recursive: true, force: true })
  },
}

async function pythonTree(packages: readonly string[], tree: string): Promise<void> {
  await extractPackages(packages, tree)
  const unneeded = [
    'usr/share/doc',
    'usr/share/man',
    'usr/share/locale',
    'usr/share/perl5',
    'usr/share/lintian',
  ]
  const gconv = (await readdir(join(tree, 'usr/lib'))).map((name) => `usr/lib/${name}/gconv`)
  const dpkg = [
    'usr/bin/dpkg',
    'usr/bin/dpkg-deb',
    'usr/share/dpkg',
    'var/cache',
    'var/lib/apt',
    'var/lib/dpkg',
  ]
  for (const path of [...unneeded, ...gconv, ...dpkg])
    await rm(join(tree, path), { recursive: true, force: true })
  await symlink('dash', join(tree, 'bin/sh')).catch(ignoreExisting)
  await symlink('python3.11', join(tree, 'usr/bin/python3')).catch(ignoreExisting)
}

/** A shell and packages, with all that they need to run and without what is only there to install, translate and explain them. */
async function debianTree(packages: readonly string[], tree: string): Promise<void> {
  await extractPackages([...packages, 'dash'], tree)
  const library = `usr/lib/${await triplet(tree)}`
  const { stdout } = await run('find', [join(tree, 'usr'), '-name', '*perl*', '-prune', '-print'])
  const unneeded = [
    ...stdout.split('\n').filter(Boolean),
    ...['doc', 'man', 'locale', 'info', 'lintian', 'bash-completion', 'icons'].map((name) =>
      join(tree, 'usr/share', name),
    ),
    join(tree, library, 'gconv'),
    ...['var/cache/apt', 'var/lib/apt', 'var/lib/dpkg', 'var/log/apt'].map((path) => join(tree, path)),
  ]
  for (const path of unneeded) await rm(path, { recursive: true, force: true })
  await symlink('dash', join(tree, 'bin/sh')).catch(ignoreExisting)
}

/** Such as `x86_64-linux-gnu`: the directory of the libraries. */
async function triplet(tree: string): Promise<string> {
  return (await readdir(join(tree, 'usr/lib'))).find((name) => name.endsWith('-linux-gnu')) ?? ''
}

/** Unpacks the packages and what they depend on, running none of their scripts. */
async function extractPackages(packages: readonly string[], tree: string): Promise<void> {
  const options = ['--quiet', '--variant=extract', `--include=${packages.join(',')}`]
  await run('mmdebstrap', [...options, 'bookworm', tree], { maxBuffer: 16 << 20 })
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error
}
