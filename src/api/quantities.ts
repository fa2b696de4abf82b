/**
 * Amounts as people write them, the way Kubernetes and systemd do: memory `512Mi` (also `k M G T`, `Ki Gi Ti`, or plain
 * bytes), CPU `500m` or `1.5` cores, durations `500ms`, `30s`, `2m`, `1h`. Each answers undefined for anything else.
 */

const memoryUnits = new Map<string, number>([
  ['', 1],
  ['k', 1e3],
  ['M', 1e6],
  ['G', 1e9],
  ['T', 1e12],
  ['Ki', 2 ** 10],
  ['Mi', 2 ** 20],
  ['Gi', 2 ** 30],
  ['Ti', 2 ** 40],
])
const durationUnits = new Map<string, number>([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
])

/** Whole bytes. */
export const parseMemory = (text: string): number | undefined => parseAmount(text, memoryUnits)

/** Whole milliseconds; a number without a unit is refused, because seconds and milliseconds both look right. */
export const parseDuration = (text: string): number | undefined => parseAmount(text, durationUnits)

/** Thousandths of one core. */
export const parseCpu = (text: string): number | undefined =>
  parseAmount(
    text,
    new Map([
      ['', 1000],
      ['m', 1],
    ]),
  )

function parseAmount(text: string, units: ReadonlyMap<string, number>): number | undefined {
  const [, number, unit] = /^(\d{1,15}(?:\.\d{1,6})?)([A-Za-z]{0,2})$/.exec(text) ?? []
  const factor = unit === undefined ? undefined : units.get(unit)
  if (number === undefined || factor === undefined) return undefined
  const amount = Math.round(Number(number) * factor)
  return Number.isSafeInteger(amount) ? amount : undefined
}
