/**
 * Own namespaces (network, mounts, processes) for a test file, so that nothing of the host is seen or touched: a file calls
 * {@link enterNamespaces} before its first test, which runs the same file again inside and ends this process with its exit code.
 * Whatever the tests start there ends with them, also when they are killed.
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, readlinkSync } from 'node:fs'
import { delimiter, resolve } from 'node:path'
import { test } from 'node:test'

const outerVariable = 'FAAS_TEST_OUTER_NETWORK'
const network = () => readlinkSync('/proc/self/ns/net')

/** What is missing of `needs` (programs by name or absolute path), as a reason for skipping; undefined when all is there. */
export function missingFor(needs: readonly string[]): string | undefined {
  if (process.getuid?.() !== 0) return 'requires root'
  const directories = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']
  const missing = needs.filter(
    (program) => !directories.some((directory) => isExecutable(resolve(directory, program))),
  )
  return missing.length === 0 ? undefined : `requires ${missing.join(', ')}`
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/**
 * Answers true inside of the namespaces: `lo` is up, /run is empty, /proc shows the own processes only. Outside it does not return.
 * Where one of `needs` (programs) is missing, it answers false and registers one skipped test that names them.
 */
export function enterNamespaces(testFile: string, needs: readonly string[]): boolean {
  const outer = process.env[outerVariable]
  if (outer !== undefined && outer !== network()) return true
  const reason = missingFor(['unshare', 'setpriv', 'ip', 'mount', ...needs])
  if (reason !== undefined) {
    test(`tests in own namespaces`, { skip: reason }, () => {})
    return false
  }
  const prepare = 'mount -t tmpfs -o mode=755 tmpfs /run && ip link set lo up && exec "$@"'
  const { status } = spawnSync(
    'setpriv',
    [
      ...[
        '--pdeathsig',
        'KILL',
        'unshare',
        '--net',
        '--mount',
        '--pid',
        '--fork',
        '--kill-child',
        '--mount-proc',
      ],
      ...['sh', '-c', prepare, 'sh', process.execPath, ...process.execArgv, testFile],
    ],
    { stdio: 'inherit', env: { ...process.env, [outerVariable]: network() } },
  )
  process.exit(status ?? 1)
}
