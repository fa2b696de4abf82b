/** What the `faas vpn` commands are handed beside the context, and what they share. */
import { join } from 'node:path'
import type { Command } from 'commander'
import type { Clock } from '../../host/clock.ts'
import type { Exec } from '../../host/exec.ts'
import { createDevice, type DeviceDeps } from '../../peers/device/device.ts'
import { needsRoot } from '../../peers/device/link.ts'
import { FaasError } from '../../values/errors.ts'
import { type CliContext, isJson, printNote } from '../context.ts'

export interface VpnDeps {
  readonly exec: Exec
  readonly clock: Clock
  /** Whether this process may make network links. */
  readonly isRoot: boolean
  /** This machine's name. */
  readonly hostname: string
}

/** `~/.config/faas`, or below XDG_CONFIG_HOME (XDG Base Directory Specification). */
export function configDirectory(env: CliContext['env']): string {
  const base = env['XDG_CONFIG_HOME']
  if (base?.startsWith('/')) return join(base, 'faas')
  const home = env['HOME']
  if (home?.startsWith('/')) return join(home, '.config', 'faas')
  throw new FaasError('OPTION_INVALID', 'HOME is not set', { hint: 'set it: HOME=/root faas vpn …' })
}

/** The device's side on this machine. Progress goes to stdout, or to stderr where that holds JSON. */
export function deviceOf(context: CliContext, deps: VpnDeps, command: Command): DeviceDeps {
  const say = (line: string): void => {
    if (isJson(command)) printNote(context, line)
    else context.stdout.write(`${line}\n`)
  }
  const { exec, clock } = deps
  return createDevice({ exec, clock, configDirectory: configDirectory(context.env), say })
}

/** Throws NOT_ROOT before anything is done that would need it later. */
export function requireRoot({ isRoot }: VpnDeps): void {
  if (!isRoot) throw needsRoot()
}
