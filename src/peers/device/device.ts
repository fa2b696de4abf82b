/** What a device's side of the network is made of; `createDevice` builds it on the real machine. */
import type { Clock } from '../../host/clock.ts'
import type { Exec } from '../../host/exec.ts'
import { createDeviceFiles, type DeviceFiles } from './config.ts'
import { createDeviceLink, type DeviceLink } from './link.ts'
import { createResolution, type Resolution } from './resolution.ts'

export interface DeviceDeps {
  readonly exec: Exec
  readonly clock: Clock
  readonly files: DeviceFiles
  readonly link: DeviceLink
  readonly resolution: Resolution
  /** One line of progress, for a person. */
  readonly say: (line: string) => void
}

export function createDevice(o: {
  exec: Exec
  clock: Clock
  /** `~/.config/faas`. */
  configDirectory: string
  say: (line: string) => void
}): DeviceDeps {
  const { exec, clock, say } = o
  const files = createDeviceFiles(o.configDirectory)
  const link = createDeviceLink({ exec, privateDirectory: files.directory })
  return { exec, clock, files, link, resolution: createResolution({ exec }), say }
}
