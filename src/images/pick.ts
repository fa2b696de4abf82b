/** Choosing among the images of one archive by name. */
import { FaasError } from '../values/errors.ts'

/** Anything with the names it goes by, such as `docker.io/library/fibonacci:latest`. */
export interface Named {
  readonly names: readonly string[]
}

const shownNames = 20

/**
 * The one that `pick` names: by the whole name, by the name without its tag, or by the last part of that.
 * Where several versions fit, `latest` is meant. Throws IMAGE_AMBIGUOUS unless exactly one is left.
 * A single image needs no pick: whatever it is called, it is the one.
 */
export function pickImage<T extends Named>(images: readonly T[], pick: string | undefined): T {
  const [only, ...others] = images
  if (only && others.length === 0) return only
  const wanted = pick ?? ''
  const ways: ((name: string) => boolean)[] = [
    (name) => name === wanted,
    (name) => name === `${wanted}:latest`,
    (name) => repository(name) === wanted,
    (name) => lastPart(name) === wanted && name.endsWith(':latest'),
    (name) => lastPart(name) === wanted,
  ]
  for (const way of ways) {
    const [first, ...more] = images.filter((image) => image.names.some(way))
    if (first && more.length === 0) return first
    if (first) break
  }
  const names = images.map((image) => image.names[0] ?? '(without a name)')
  throw new FaasError(
    'IMAGE_AMBIGUOUS',
    `the archive has ${images.length} images and ${pick === undefined ? 'none was named' : `none or several are ${JSON.stringify(pick)}`}: ${names.slice(0, shownNames).join(', ')}`,
    { hint: 'save one image alone, or deploy it under the name of its repository' },
  )
}

/** Without tag and digest. */
const repository = (name: string): string => name.replace(/@.*$/, '').replace(/:[^/:]*$/, '')

const lastPart = (name: string): string => repository(name).replace(/^.*\//, '')
