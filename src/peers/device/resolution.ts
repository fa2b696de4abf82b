/**
 * Makes the device resolve names under `faas.` with the server's DNS: by systemd-resolved (only these names go there), else
 * by resolvconf, else, and only where the caller allows it, by a line in /etc/resolv.conf, whose old content is kept
 * beside it. Otherwise nothing is changed and the caller is told what to write.
 * What was done is noted before it is done ({@link DnsUndo}), so that a crash half-way can be undone.
 */
import { lstat, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises'
import type { Exec } from '../../host/exec.ts'
import { readTextIfExists } from '../../host/files.ts'
import { deviceLink, serverAddress } from '../../net/addresses.ts'
import { FaasError } from '../../values/errors.ts'
import type { DnsUndo } from './config.ts'

export interface Resolution {
  /** The ways to try on this machine, best first; the last, `nothing`, always works. */
  ways(options: { writeResolvConf: boolean }): Promise<readonly DnsUndo[]>
  apply(way: DnsUndo): Promise<void>
  /** Idempotent. Answers what the user should know, if anything. */
  undo(way: DnsUndo): Promise<string | undefined>
}

export interface ResolutionDeps {
  readonly exec: Exec
  /** Default /etc/resolv.conf. */
  readonly resolvConf?: string
  /** Default /etc/resolvconf/interface-order. */
  readonly interfaceOrder?: string
}

/** The first line of a resolv.conf that {@link Resolution.apply} wrote. */
const marker = '# Written by faas vpn connect; faas vpn disconnect puts the old file back.'

/** The old content follows, so that other names still resolve when the server does not answer (resolv.conf(5)). */
export const renderResolvConf = (old: string): string => `${marker}\nnameserver ${serverAddress}\n${old}`

/** What to do by hand where no program for it is installed. */
export const dnsInstruction: readonly string[] = [
  'names under faas. do not resolve yet: neither resolvectl (systemd-resolved) nor resolvconf is at work here',
  'either put this line first in /etc/resolv.conf:',
  `    nameserver ${serverAddress}`,
  'or let it be done, and undone by `faas vpn disconnect`:',
  '    faas vpn connect --write-resolv-conf',
]

export function createResolution({
  exec,
  resolvConf = '/etc/resolv.conf',
  interfaceOrder = '/etc/resolvconf/interface-order',
}: ResolutionDeps): Resolution {
  const kept = `${resolvConf}.before-faas`

  return {
    async ways({ writeResolvConf }) {
      const ways: DnsUndo[] = []
      if (await works(exec, 'resolvectl', ['status', '--no-pager'])) ways.push({ by: 'resolvectl' })
      if (await isInstalled(exec, 'resolvconf')) {
        ways.push({ by: 'resolvconf', record: `${await recordPrefix(interfaceOrder)}${deviceLink}` })
      }
      if (writeResolvConf) ways.push({ by: 'resolv.conf', path: resolvConf, kept })
      return [...ways, { by: 'nothing' }]
    },

    async apply(way) {
      if (way.by === 'resolvectl') {
        await exec('resolvectl', ['dns', deviceLink, serverAddress])
        await exec('resolvectl', ['domain', deviceLink, '~faas'])
      } else if (way.by === 'resolvconf') {
        await exec('resolvconf', ['-a', way.record, '-m', '0'], { input: `nameserver ${serverAddress}\n` })
      } else if (way.by === 'resolv.conf') {
        await writeOurs(way.path, way.kept)
      }
    },

    async undo(way) {
      if (way.by === 'resolvectl') await exec('resolvectl', ['revert', deviceLink]).catch(ignoreFailure)
      if (way.by === 'resolvconf') await exec('resolvconf', ['-d', way.record]).catch(ignoreFailure)
      return way.by === 'resolv.conf' ? putBack(way.path, way.kept) : undefined
    },
  }
}

async function works(exec: Exec, program: string, args: readonly string[]): Promise<boolean> {
  return exec(program, args, { timeoutMs: 5_000 }).then(
    () => true,
    () => false,
  )
}

async function isInstalled(exec: Exec, program: string): Promise<boolean> {
  try {
    await exec(program, ['--version'], { timeoutMs: 5_000 })
    return true
  } catch (error) {
    return !(error instanceof FaasError && error.code === 'PROGRAM_MISSING')
  }
}

/** Debian's resolvconf ranks records by name; wg-quick takes the first ranked prefix, and so do we. */
async function recordPrefix(interfaceOrder: string): Promise<string> {
  const lines = (await readTextIfExists(interfaceOrder))?.split('\n') ?? []
  const ranked = lines.map((line) => /^([A-Za-z0-9-]+)\*$/.exec(line)?.[1]).find((name) => name !== undefined)
  return ranked === undefined ? '' : `${ranked}.`
}

async function writeOurs(path: string, kept: string): Promise<void> {
  const old = (await readTextIfExists(path)) ?? ''
  if (old.startsWith(marker)) return
  const link = await linkTarget(path)
  await rm(kept, { force: true })
  if (link === undefined) await writeFile(kept, old, { mode: 0o644 })
  else await symlink(link, kept)
  await replace(path, renderResolvConf(old))
}

async function putBack(path: string, kept: string): Promise<string | undefined> {
  const present = (await readTextIfExists(path)) ?? ''
  const link = await linkTarget(kept)
  const old = link === undefined ? await readTextIfExists(kept) : undefined
  if (link === undefined && old === undefined) return undefined
  if (link !== undefined && (await linkTarget(path)) === link) {
    await rm(kept)
    return undefined
  }
  if (!present.startsWith(marker) && present !== old) {
    return `${path} was changed by something else and is left as it is; the old one is ${kept}`
  }
  if (link === undefined) {
    await replace(path, old ?? '')
    await rm(kept)
  } else {
    await rename(kept, path)
  }
  return undefined
}

/** By rename, so that no reader sees half of it; in place where the file is a mount of its own (containers). */
async function replace(path: string, content: string): Promise<void> {
  const aside = `${path}.faas-new`
  await writeFile(aside, content, { mode: 0o644 })
  try {
    await rename(aside, path)
  } catch (error) {
    await rm(aside, { force: true })
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error
    await writeFile(path, content)
  }
}

async function linkTarget(path: string): Promise<string | undefined> {
  const stats = await lstat(path).catch(() => undefined)
  return stats?.isSymbolicLink() ? readlink(path) : undefined
}

const ignoreFailure = (error: unknown): void => {
  if (!(error instanceof FaasError)) throw error
}
