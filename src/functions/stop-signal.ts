/** STOPSIGNAL of an image, as a number for kill(2). */
import { constants } from 'node:os'

/** As glibc and Docker count them; the two below belong to the threads library. */
const realTime = { first: 34, last: 64 } as const

/**
 * The number of a signal that is given by number or name, with or without `SIG`, real-time ones as `RTMIN+3` or
 * `RTMAX-2`. SIGTERM for what is none.
 */
export function signalNumber(text: string): number {
  const name = text.toUpperCase().replace(/^SIG/, '')
  const number = byNumber(name) ?? byRealTime(name) ?? constants.signals[`SIG${name}` as NodeJS.Signals]
  return number >= 1 && number <= realTime.last ? number : constants.signals.SIGTERM
}

const byNumber = (text: string): number | undefined => (/^\d{1,2}$/.test(text) ? Number(text) : undefined)

function byRealTime(name: string): number | undefined {
  const [, end, offset = '0'] = /^RT(MIN|MAX)((?:(?<=MIN)\+|(?<=MAX)-)\d{1,2})?$/.exec(name) ?? []
  if (end === undefined) return undefined
  const number = (end === 'MIN' ? realTime.first : realTime.last) + Number(offset)
  return number >= realTime.first && number <= realTime.last ? number : undefined
}
