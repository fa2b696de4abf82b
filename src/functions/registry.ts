/**
 * `registry.json`: which functions there are. It is replaced as a whole, and the rename of the new file over the
 * old one is *the* commit point of deploy, rollback and remove (docs/ARCHITECTURE.md). Beside it lies `registry.last-good.json`, the
 * last content that was written; when `registry.json` cannot be read it is kept aside as
 * `registry.json.bad-TIME` and the last good one is used, said aloud. Never is it silently empty.
 * Failures: REGISTRY_CORRUPT (neither can be read), STATE_TOO_NEW (written by a newer faasd), DISK_FULL.
 */
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { type Reach, reachNothing } from '../host/failpoints.ts'
import { readTextIfExists, type WriteOptions, writeFileAtomic } from '../host/files.ts'
import type { FreedAddress } from '../net/addresses.ts'
import type { Log } from '../telemetry/log.ts'
import { parseDigest } from '../values/digest.ts'
import { FaasError } from '../values/errors.ts'
import { parseIpv6 } from '../values/ipv6.ts'
import { type FunctionName, parseFunctionName } from '../values/names.ts'
import { type FunctionRecord, parseHealthPath } from './function.ts'

export interface RegistryContent {
  readonly functions: ReadonlyMap<FunctionName, FunctionRecord>
  /** Addresses that were given back and rest until old DNS answers are forgotten. */
  readonly resting: readonly FreedAddress[]
}

export interface Registry {
  readonly content: RegistryContent
  /**
   * Replaces the content, durably: when it resolves, it survives a power cut; when it throws, the old content holds.
   * Changes are made one after another: `change` sees what the one before it wrote.
   */
  commit(change: (content: RegistryContent) => RegistryContent): Promise<void>
}

const formatVersion = 1
const checked = <T>(parse: (text: string) => T) =>
  z.string().transform((text, context): T => {
    try {
      return parse(text)
    } catch (error) {
      context.addIssue(error instanceof Error ? error.message : String(error))
      return z.NEVER
    }
  })
const positive = z.int().positive()
const port = z.int().min(1).max(65535)
const versionFields = {
  version: positive,
  image: checked(parseDigest),
  contract: z.enum(['fd', 'listen']),
  ports: z.array(z.strictObject({ port, target: port })).min(1),
  options: z.strictObject({
    limits: z.strictObject({
      memoryBytes: positive,
      cpuMillis: positive,
      pids: positive,
      tmpBytes: positive,
    }),
    timeouts: z.strictObject({
      connectMs: positive,
      totalMs: positive,
      queueMs: positive,
      pauseMs: positive,
      idleMs: positive.exactOptional(),
    }),
    maxInstances: positive,
    minInstances: z.int().min(0),
    standby: z.int().min(0).exactOptional(),
    reuse: z.boolean().exactOptional(),
    writable: z.boolean(),
    health: checked(parseHealthPath).exactOptional(),
    env: z.array(z.string().regex(/^[^=\0]+=[^\0]*$/)),
  }),
  deployed: z.iso.datetime(),
  rollbackOf: positive.exactOptional(),
}
const record = z
  .strictObject({
    address: checked(parseIpv6),
    created: z.iso.datetime(),
    ...versionFields,
    previous: z.array(z.strictObject(versionFields)),
  })
  .refine(({ version, previous }) => isRising([...previous.map((one) => one.version), version]), {
    error: 'the numbers of its versions do not rise',
    path: ['previous'],
  })
const isRising = (numbers: readonly number[]): boolean =>
  numbers.every((number, index) => index === 0 || number > (numbers[index - 1] ?? 0))
/** Pairs, not an object: a function may be called `constructor`. */
const file = z.strictObject({
  version: z.literal(formatVersion),
  functions: z.array(z.tuple([checked(parseFunctionName), record])),
  resting: z.array(z.strictObject({ address: checked(parseIpv6), freedAtMs: z.number() })),
})

/** The text of `registry.json`. Same content, same bytes: functions are sorted by name. */
export function renderRegistry({ functions, resting }: RegistryContent): string {
  const sorted = [...functions].sort(([a], [b]) => (a < b ? -1 : 1))
  return `${JSON.stringify({ version: formatVersion, functions: sorted, resting }, undefined, 1)}\n`
}

/** Reads {@link renderRegistry}'s text. Throws STATE_TOO_NEW, or REGISTRY_CORRUPT naming what is wrong. */
export function parseRegistry(text: string): RegistryContent {
  const json = parseJson(text)
  const version = z.object({ version: z.number() }).safeParse(json).data?.version
  if (version !== undefined && version > formatVersion) {
    throw new FaasError(
      'STATE_TOO_NEW',
      `registry.json has format ${version}, this faasd knows ${formatVersion}`,
      {
        hint: 'install the faasd that wrote it, or a newer one',
      },
    )
  }
  const parsed = file.safeParse(json)
  if (!parsed.success)
    throw new FaasError('REGISTRY_CORRUPT', `registry.json: ${z.prettifyError(parsed.error)}`)
  const functions = new Map(parsed.data.functions)
  if (functions.size !== parsed.data.functions.length) {
    throw new FaasError('REGISTRY_CORRUPT', 'registry.json names a function twice')
  }
  if (new Set([...functions.values()].map(({ address }) => address)).size !== functions.size) {
    throw new FaasError('REGISTRY_CORRUPT', 'registry.json gives one address to two functions')
  }
  return { functions, resting: parsed.data.resting }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new FaasError('REGISTRY_CORRUPT', `registry.json is no JSON: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

export interface RegistryDeps {
  readonly root: string
  readonly log: Log
  /** D8: written aside; D9: committed (docs/ARCHITECTURE.md). */
  readonly reach?: Reach
}

/** Opens the registry in `root`, or begins an empty one where neither file has ever been. */
export async function openRegistry({ root, log, reach = reachNothing }: RegistryDeps): Promise<Registry> {
  const path = join(root, 'registry.json')
  const lastGoodPath = join(root, 'registry.last-good.json')
  let content = await load(path, lastGoodPath, log)
  let turn: Promise<void> = Promise.resolve()
  return {
    get content() {
      return content
    },
    commit(change) {
      const commit = async () => {
        const next = change(content)
        const text = renderRegistry(next)
        await writeDurably(path, text, { beforeRename: () => reach('D8') })
        content = next
        await reach('D9')
        // After the commit: if we die in between, the next start catches up.
        await writeDurably(lastGoodPath, text).catch((error: unknown) =>
          log.warn('registry', `no copy of registry.json could be kept: ${String(error)}`),
        )
      }
      const mine = turn.then(commit)
      turn = mine.catch(() => {})
      return mine
    },
  }
}

async function writeDurably(path: string, text: string, options: WriteOptions = {}): Promise<void> {
  try {
    await writeFileAtomic(path, text, { mode: 0o600, ...options })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    throw new FaasError('DISK_FULL', `no room on the disk to write ${path}`, {
      hint: 'free some space: `faas rm NAME`, or a larger disk',
      cause: error,
    })
  }
}

async function load(path: string, lastGoodPath: string, log: Log): Promise<RegistryContent> {
  const text = await readTextIfExists(path)
  const lastGood = await readTextIfExists(lastGoodPath)
  if (text !== undefined) {
    try {
      const content = parseRegistry(text)
      // A crash between the two writes leaves the copy one change behind.
      if (lastGood !== text) await writeDurably(lastGoodPath, text)
      return content
    } catch (error) {
      if (!(error instanceof FaasError) || error.code !== 'REGISTRY_CORRUPT') throw error
      // Without a copy the damaged file stays where it is: a missing one would look like a first start.
      if (lastGood === undefined) throw noLastGood(path, error)
      const aside = `${path}.bad-${new Date().toISOString().replaceAll(':', '')}`
      await rename(path, aside)
      log.error('registry', `${error.message}; it is kept as ${aside}`)
    }
  }
  if (lastGood === undefined) return { functions: new Map(), resting: [] }
  const content = parseRegistry(lastGood)
  log.error('registry', `the last good registry is used: ${content.functions.size} functions`)
  await writeDurably(path, lastGood)
  return content
}

const noLastGood = (path: string, cause: FaasError): FaasError =>
  new FaasError('REGISTRY_CORRUPT', `${cause.message}; and there is no last good copy of ${path}`, {
    hint: `restore ${path} from a backup`,
    cause,
  })
