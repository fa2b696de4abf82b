/**
 * A lab: a *server* and *devices* as machines of their own (network, mount, process, name, ipc and cgroup namespaces),
 * joined by a veth each to a bridge that plays the internet. What they write lies in one temporary directory; the checkout
 * and everything else are the same files as outside. Needs root. Any number of labs can stand at once.
 *
 * A lab ends with its maker, however that ends: a watcher (remove.sh) holds a pipe from it. A lab that is *kept* has no
 * watcher and stands until removeLab. What a killed watcher left is swept when the next lab is made.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { toolsDirectory } from '../../packaging/tools/tools.ts'
import { exec } from '../../src/host/exec.ts'
import { type Machine, type MachineRecord, openMachine } from './machine.ts'

export interface LabOptions {
  /** Default 1. */
  readonly devices?: number
  /** What devices have to set their DNS. Default `openresolv`. */
  readonly resolver?: 'openresolv' | 'none'
  /** A /tmp of its own for each machine; by default it is the host's. */
  readonly ownTmp?: boolean
  /** Makes a lab that outlives this process; found again by this name. */
  readonly keptAs?: string
}

export interface Lab extends AsyncDisposable {
  readonly directory: string
  readonly server: Machine
  /** The first of `devices`. */
  readonly device: Machine
  readonly devices: readonly Machine[]
}

interface LabRecord {
  readonly keptAs: string | null
  readonly checkout: string
  readonly machines: readonly MachineRecord[]
}

const prefix = 'faasd-lab-'
const here = import.meta.dirname
const checkout = dirname(dirname(here))
/** A lab younger than this may not have taken its lock yet. */
const youngMs = 60_000

/** Makes a lab. Takes about half a second. */
export async function createLab(options: LabOptions = {}): Promise<Lab> {
  await sweepStaleLabs()
  const directory = await mkdtemp(join(tmpdir(), prefix))
  const watcher = options.keptAs === undefined ? await startWatcher(directory) : undefined
  try {
    const names = ['server', ...Array.from({ length: options.devices ?? 1 }, (_, i) => deviceName(i))]
    const [internet, ...pids] = await Promise.all(
      ['internet', ...names].map((name) => startMachine(directory, name, options)),
    )
    const machines = names.map((name, index): MachineRecord => {
      const host = index === 0 ? 2 : 10 + index
      return { name, pid: pids[index] ?? 0, ipv4: `10.73.0.${host}`, ipv6: `fd73::${host}` }
    })
    await joinInternet(internet ?? 0, machines)
    const record: LabRecord = { keptAs: options.keptAs ?? null, checkout, machines }
    await writeFile(join(directory, 'lab.json'), JSON.stringify(record))
    return openLab(directory, record, () => (watcher ? endWatcher(watcher) : removeLab(directory)))
  } catch (error) {
    await (watcher ? endWatcher(watcher) : removeLab(directory))
    throw error
  }
}

/** The lab that was made with `keptAs` from this checkout, if it stands. */
export async function findKeptLab(keptAs: string): Promise<Lab | undefined> {
  for (const directory of await labDirectories()) {
    const record = await readRecord(directory)
    if (record?.keptAs === keptAs && record.checkout === checkout && !(await isStale(directory))) {
      return openLab(directory, record, () => removeLab(directory))
    }
  }
  return undefined
}

/** Ends every process of a lab and removes what it had. Safe to repeat. */
export async function removeLab(directory: string): Promise<void> {
  await exec(join(here, 'remove.sh'), [directory, 'now'], { timeoutMs: 60_000 })
}

/** Removes labs whose watcher or machines were killed, as after a crash. Labs that stand are left alone. */
export async function sweepStaleLabs(): Promise<void> {
  for (const directory of await labDirectories()) {
    if (await isStale(directory)) await removeLab(directory)
  }
}

const deviceName = (index: number) => (index === 0 ? 'device' : `device-${index + 1}`)

function openLab(directory: string, record: LabRecord, remove: () => Promise<void>): Lab {
  const [server, ...devices] = record.machines.map((machine) =>
    openMachine(machine, join(directory, machine.name)),
  )
  const device = devices[0] ?? server
  if (server === undefined || device === undefined) throw new Error(`${directory}/lab.json names no machines`)
  return { directory, server, device, devices, [Symbol.asyncDispose]: remove }
}

async function startWatcher(directory: string): Promise<ChildProcess> {
  const watcher = spawn(join(here, 'remove.sh'), [directory, 'wait'], {
    // A session of its own: a Ctrl-C on the terminal is not for the watcher.
    detached: true,
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await firstLine(watcher, 'the lab’s watcher')
  watcher.unref()
  return watcher
}

async function endWatcher(watcher: ChildProcess): Promise<void> {
  if (watcher.exitCode !== null || watcher.signalCode !== null) return
  const ended = once(watcher, 'exit')
  watcher.ref()
  watcher.stdin?.end()
  const [code] = await ended
  if (code !== 0) throw new Error(`the lab was not removed whole: remove.sh exited with ${code}`)
}

/** Starts a machine and answers its process 1. */
async function startMachine(lab: string, name: string, options: LabOptions): Promise<number> {
  const directory = join(lab, name)
  await mkdir(directory)
  const words = [
    name === 'internet' ? 'bare' : '',
    options.ownTmp === true ? 'own-tmp' : '',
    options.keptAs === undefined ? '' : 'kept',
    name.startsWith('device') && options.resolver !== 'none' ? 'openresolv' : '',
  ].filter(Boolean)
  const boot = [
    join(here, 'boot.sh'),
    name,
    directory,
    checkout,
    toolsDirectory(process.env),
    words.join(' '),
  ]
  const namespaces = ['--mount', '--net', '--pid', '--uts', '--ipc', '--fork', '--kill-child']
  const unshare = spawn('unshare', [...namespaces, '--', ...boot], {
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  await firstLine(unshare, `the machine ${name}`)
  const children = await readFile(`/proc/${unshare.pid}/task/${unshare.pid}/children`, 'utf8')
  unshare.unref()
  for (const stream of [unshare.stdin, unshare.stdout, unshare.stderr])
    (stream as { unref?(): void } | null)?.unref?.()
  return Number(children.trim())
}

/** Waits for the line `ready`; anything else is a failure, told with what the program wrote. */
async function firstLine(child: ChildProcess, what: string): Promise<void> {
  let output = ''
  child.stderr?.on('data', (part: Buffer) => {
    output += part.toString()
  })
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) =>
      reject(new Error(`${what} did not start (exit code ${code}): ${output.trim()}`)),
    )
    child.stdout?.on('data', (part: Buffer) => {
      output += part.toString()
      if (output.split('\n').includes('ready')) resolve()
    })
  })
}

async function joinInternet(internet: number, machines: readonly MachineRecord[]): Promise<void> {
  const ip = (pid: number, commands: readonly string[]) =>
    exec('nsenter', ['--target', String(pid), '--net', '--', 'ip', '-batch', '-'], {
      input: `${commands.join('\n')}\n`,
    })
  await ip(internet, [
    'link add inet0 type bridge mcast_snooping 0',
    'link set inet0 up',
    ...machines.flatMap(({ name, pid }) => [
      `link add to-${name} type veth peer name eth0 netns ${pid}`,
      `link set to-${name} master inet0 up`,
    ]),
  ])
  for (const { pid, ipv4, ipv6 } of machines) {
    await ip(pid, [`addr add ${ipv4}/24 dev eth0`, `addr add ${ipv6}/64 dev eth0 nodad`, 'link set eth0 up'])
  }
}

async function labDirectories(): Promise<string[]> {
  const names = await readdir(tmpdir())
  return names.filter((name) => name.startsWith(prefix)).map((name) => join(tmpdir(), name))
}

async function readRecord(directory: string): Promise<LabRecord | undefined> {
  try {
    return JSON.parse(await readFile(join(directory, 'lab.json'), 'utf8')) as LabRecord
  } catch {
    return undefined
  }
}

/** A lab that stands has somebody holding its lock: its watcher, or its machines when it is kept. */
async function isStale(directory: string): Promise<boolean> {
  const age = await stat(directory).then(
    ({ birthtimeMs }) => Date.now() - birthtimeMs,
    () => 0,
  )
  const lock = join(directory, 'lock')
  const { code } = await exec('flock', ['--nonblock', '--no-fork', lock, 'true'], { okCodes: [0, 1, 66] })
  return code === 0 && age > youngMs
}
