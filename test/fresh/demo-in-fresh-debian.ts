/**
 * `./run test fresh`: `./run demo` in a Debian 12 tree as debootstrap makes it, without Node, npm or Go. Takes minutes and
 * a network, so it is no part of the suite. Needs root, mmdebstrap and 3 GB in the temporary directory.
 *
 * What this machine needs to reach its package registries is handed to the tree at run time: proxies, the resolver, and
 * certificates that are trusted here.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { removeTree } from '../../src/host/files.ts'

const checkout = dirname(dirname(import.meta.dirname))

test('./run demo works in a fresh Debian 12 tree, and takes seconds the second time', {
  timeout: 1_800_000,
}, async () => {
  const work = mkdtempSync(join(tmpdir(), 'faasd-fresh-'))
  try {
    const tree = join(work, 'tree')
    await inherit('mmdebstrap', ['--quiet', '--variant=debootstrap', 'bookworm', tree])
    copyCheckout(join(tree, 'root/faasd'))
    const environment = handDown(tree)
    const inTree = (...argv: string[]) =>
      inherit(
        'unshare',
        [
          '--mount',
          '--pid',
          '--fork',
          '--kill-child',
          join(import.meta.dirname, 'enter-tree.sh'),
          tree,
          ...argv,
        ],
        environment,
      )

    await inTree(
      'bash',
      '-c',
      '! command -v node && ! command -v npm && ! command -v go && ! command -v coredns',
    )
    const first = await inTree('./run', 'demo')
    assert.match(first, /Fibonacci sequence \(10 steps\):\n\s*0, 1, 1, 2, 3, 5, 8, 13, 21, 34/)
    const begin = performance.now()
    await inTree('./run', 'demo')
    const seconds = (performance.now() - begin) / 1000
    assert.ok(seconds < 60, `the second demo took ${seconds} s`)
    const left = await inTree('bash', '-c', 'ls -d /tmp/faasd-* 2>/dev/null || true')
    assert.equal(left, '')
  } finally {
    await removeTree(work)
  }
})

/** Runs a program, shows what it prints, and answers its stdout. Throws when it fails. */
function inherit(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'inherit'] })
    let output = ''
    child.stdout.on('data', (part: Buffer) => {
      output += part.toString()
      process.stderr.write(part)
    })
    child.once('error', reject)
    child.once('close', (code) =>
      code === 0 ? resolve(output) : reject(new Error(`${program} exited with ${code}`)),
    )
  })
}

/** What git would have in a clone, with what is not committed yet. */
function copyCheckout(target: string): void {
  mkdirSync(target, { recursive: true })
  const files = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: checkout,
  })
    .toString()
    .split('\0')
    .filter((file) => file !== '' && existsSync(join(checkout, file)))
  const archive = execFileSync('tar', ['--null', '--files-from=-', '-c'], {
    cwd: checkout,
    input: files.join('\0'),
    maxBuffer: 256 << 20,
  })
  execFileSync('tar', ['-x', '-C', target], { input: archive })
}

function handDown(tree: string): NodeJS.ProcessEnv {
  for (const file of ['etc/resolv.conf', 'etc/hosts']) copyFileSync(`/${file}`, join(tree, file))
  const environment: NodeJS.ProcessEnv = {
    HOME: '/root',
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    LANG: 'C.UTF-8',
  }
  for (const [name, value] of Object.entries(process.env)) {
    if (/^(https?|no|ftp|all)_proxy$|^GOPROXY$|^GOSUMDB$|^npm_config_registry$/i.test(name))
      environment[name] = value
  }
  const certificates = '/etc/ssl/certs/ca-certificates.crt'
  if (existsSync(certificates)) {
    copyFileSync(certificates, join(tree, 'root/trusted.crt'))
    for (const name of ['NODE_EXTRA_CA_CERTS', 'SSL_CERT_FILE', 'CURL_CA_BUNDLE', 'npm_config_cafile']) {
      environment[name] = '/root/trusted.crt'
    }
  }
  return environment
}
