/**
 * Pulls exact amounts out of a stream of chunks, holding one chunk at a time. Whatever it hands out is a view that
 * is good until the next call, so that a source may use one buffer again and again.
 */
export class ByteReader {
  readonly #iterator: AsyncIterator<Uint8Array>
  #chunk: Uint8Array = new Uint8Array(0)
  #at = 0
  /** Bytes handed out so far. */
  position = 0

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#iterator = source[Symbol.asyncIterator]()
  }

  async #fill(): Promise<boolean> {
    while (this.#at === this.#chunk.length) {
      const next = await this.#iterator.next()
      if (next.done) return false
      this.#chunk = next.value
      this.#at = 0
    }
    return true
  }

  #take(bytes: number): Uint8Array {
    const piece = this.#chunk.subarray(this.#at, this.#at + bytes)
    this.#at += piece.length
    this.position += piece.length
    return piece
  }

  /** The next 1 to `maxBytes` bytes; undefined at the end of the stream. */
  async some(maxBytes: number): Promise<Uint8Array | undefined> {
    if (this.#at === this.#chunk.length && !(await this.#fill())) return undefined
    return this.#take(maxBytes)
  }

  /** The next `bytes` bytes, or fewer where the stream ends before. */
  async upTo(bytes: number): Promise<Uint8Array> {
    if (this.#chunk.length - this.#at >= bytes) return this.#take(bytes)
    const whole = new Uint8Array(bytes)
    let length = 0
    while (length < bytes) {
      const piece = await this.some(bytes - length)
      if (piece === undefined) break
      whole.set(piece, length)
      length += piece.length
    }
    return whole.subarray(0, length)
  }

  /** Tells the source that nothing more will be read. */
  async close(): Promise<void> {
    await this.#iterator.return?.()
  }
}
