/** The images that the platform's tests deploy. Built once a test file. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ArchiveOptions } from '../images/archive.ts'
import { buildPythonImage, type PythonImage } from '../images/build.ts'

const handler = (name: string): Promise<string> =>
  readFile(join(import.meta.dirname, 'handlers', `${name}.py`), 'utf8')

/** handlers/actions.py; `/version` answers `version`. */
export async function actionsImage(
  version: string,
  more: Partial<PythonImage> = {},
  options: ArchiveOptions = {},
): Promise<string> {
  return buildPythonImage(
    {
      name: 'actions',
      handler: await handler('actions'),
      ...more,
      env: [`VERSION=${version}`, ...(more.env ?? [])],
    },
    options,
  )
}

/** handlers/hostile.py: what it tries is in the path of the request. */
export async function hostileImage(): Promise<string> {
  return buildPythonImage({ name: 'hostile', base: 'python-ctypes', handler: await handler('hostile') })
}

/** A Python program that is no handler. */
export const brokenImage = (source: string, more: Partial<PythonImage> = {}): Promise<string> =>
  buildPythonImage({ name: 'broken', handler: source, ...more })
