/**
 * The daemon's own log: one line an event, `[topic] message`, on standard output for the journal or the terminal.
 * Text from outside is made printable first, so that nobody forges a line or drives the reader's terminal.
 */

export interface Log {
  info(topic: string, message: string): void
  /** Something needs care and the platform goes on. */
  warn(topic: string, message: string): void
  /** Something that should work does not. */
  error(topic: string, message: string): void
}

/** `write` gets whole lines, with their newline. */
export const createLog = ({ write }: { write: (line: string) => void }): Log => {
  const line = (mark: string) => (topic: string, message: string) =>
    write(`[${topic}] ${mark}${printable(message)}\n`)
  return { info: line(''), warn: line('warning: '), error: line('error: ') }
}

/** Control characters (line ends too) become `\xNN`, so that a text stays on its line. */
export const printable = (text: string): string =>
  text.replace(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u2028\u2029]/g, escapeCharacter)

const escapeCharacter = (character: string): string => {
  const code = character.charCodeAt(0)
  if (character === '\n') return '\\n'
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16)}`
}
