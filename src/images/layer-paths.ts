/**
 * Paths within one layer. A path through a symbolic link of the same layer means what it would mean to a process
 * whose root is the layer; here it is resolved to a path without links, so that nothing that is written later ever
 * passes through one. Paths are one character a byte, relative, without `.`, `..` or empty parts; the root is ''.
 * Failures: IMAGE_LAYER_INVALID.
 */
import { FaasError } from '../values/errors.ts'

/** A Linux path has at most 4095 bytes, and the layer itself lies below a directory of the host. */
const maxPathBytes = 3800
const maxPartBytes = 255
/** As many as the kernel follows (path_resolution(7)). */
const maxLinks = 40

export const shownPath = (path: string): string =>
  JSON.stringify(Buffer.from(path.slice(0, 160), 'latin1').toString('utf8'))

/** The parts of an entry's name. Throws for `..`, and for names that no file system takes. */
export function partsOf(name: string, what = 'an entry'): string[] {
  if (name.length > maxPathBytes) throw invalid(`${what} has a name of ${name.length} bytes`)
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  for (const part of parts) {
    if (part === '..') throw invalid(`${what} is named ${shownPath(name)}: ".." leads out of the layer`)
    if (part.length > maxPartBytes) throw invalid(`${what} has a part of ${part.length} bytes in its name`)
  }
  return parts
}

export const invalid = (message: string): FaasError =>
  new FaasError('IMAGE_LAYER_INVALID', message, { hint: 'build and save the image again' })

/** The symbolic links of a layer as far as it has been read. */
export class LayerLinks {
  readonly #targets = new Map<string, string>()
  readonly #limit: number
  /** Layers list a directory's entries one after another: the last answer is the likeliest question. */
  #lastAsked = ''
  #lastAnswer = ''

  constructor(limit: number) {
    this.#limit = limit
  }

  get(path: string): string | undefined {
    return this.#targets.get(path)
  }

  set(path: string, target: string): void {
    if (this.#targets.size >= this.#limit) {
      throw new FaasError('IMAGE_TOO_LARGE', `a layer has more than ${this.#limit} symbolic links`)
    }
    this.#targets.set(path, target)
    this.#forget()
  }

  delete(path: string): void {
    if (this.#targets.delete(path)) this.#forget()
  }

  #forget(): void {
    this.#lastAsked = ''
    this.#lastAnswer = ''
  }

  /** The path of an entry with these parts, links followed in all but the last of them. */
  resolve(parts: readonly string[]): string {
    if (parts.length === 0) return ''
    const parent = parts.slice(0, -1).join('/')
    const last = parts.at(-1) ?? ''
    if (parent !== this.#lastAsked) {
      this.#lastAnswer = this.#targets.size === 0 ? parent : this.#follow(parts.slice(0, -1))
      this.#lastAsked = parent
    }
    const path = this.#lastAnswer === '' ? last : `${this.#lastAnswer}/${last}`
    if (path.length > maxPathBytes)
      throw invalid(`${shownPath(path)} leads to a path of ${path.length} bytes`)
    return path
  }

  #follow(parts: readonly string[]): string {
    let at: string[] = []
    // The next part is the last element.
    const left = parts.toReversed()
    let followed = 0
    for (let part = left.pop(); part !== undefined; part = left.pop()) {
      if (part === '' || part === '.') continue
      if (part === '..') {
        // The parent of the root is the root.
        at.pop()
        continue
      }
      at.push(part)
      const target = this.#targets.get(at.join('/'))
      if (target === undefined) continue
      if (++followed > maxLinks) throw invalid(`${shownPath(parts.join('/'))} leads through a loop of links`)
      if (target.startsWith('/')) at = []
      else at.pop()
      left.push(...target.split('/').toReversed())
    }
    return at.join('/')
  }
}
