/**
 * Base layers of test images, made from Debian packages without a registry and kept in the tools cache: `python` (Python
 * 3.11 with its minimal library, and a shell), `python-ctypes` (with the whole library, for system calls), `busybox` (one
 * static program). Needs mmdebstrap and a Debian mirror the first time; a base takes a few seconds then.
 */
import { execFile } from 'node:child_process'
import { chmod, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { cachedDirectory } from '../../packaging/tools/tools.ts'

export type Base = 'python' | 'python-ctypes' | 'busybox'

const run = promisify(execFile)

const passwd = [
  'root:x:0:0:root:/root:/bin/sh',
  'daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin',
  'app:x:1000:1000:app:/app:/bin/sh',
  'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin',
]
const group = ['root:x:0:', 'daemon:x:1:', 'video:x:44:app', 'app:x:1000:', 'nogroup:x:65534:']

/** The path of the base's layer, an uncompressed tar file. The number in the name rises when the recipe changes. */
export async function baseLayer(base: Base, tools: string): Promise<string> {
  const directory = await cachedDirectory(tools, `image-base-${base}-1`, async (aside) => {
    const tree = join(aside, 'tree')
    await recipes[base](tree)
    await mkdir(join(tree, 'etc'), { recursive: true })
    await writeFile(join(tree, 'etc/passwd'), `${passwd.join('\n')}\n`)
    await writeFile(join(tree, 'etc/group'), `${group.join('\n')}\n`)
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

/** Unpacks the packages and what they depend on, running none of their scripts. */
async function extractPackages(packages: readonly string[], tree: string): Promise<void> {
  const options = ['--quiet', '--variant=extract', `--include=${packages.join(',')}`]
  await run('mmdebstrap', [...options, 'bookworm', tree], { maxBuffer: 16 << 20 })
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error
}
