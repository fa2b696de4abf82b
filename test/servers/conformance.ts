/**
 * One suite for every unmodified server, on every runtime: deployed from an image as people make it, called by a device,
 * frozen and woken, ended and woken, and redeployed.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { missingFor } from '../net/namespace.ts'
import { createPlace, missingRuntime, type Place, type RuntimeName, runtimes } from './place.ts'

export interface ServerCase {
  readonly title: string
  readonly name: string
  /** What it takes to build the image here. */
  readonly needs?: readonly string[]
  readonly image: (version: string) => Promise<string>
  readonly options?: readonly string[]
  /** Calls it. Default: `GET /`. */
  readonly ask?: (place: Place, name: string) => Promise<string>
  readonly expected: (version: string) => string | RegExp
  /** Default `kernel`. */
  readonly path?: 'relay'
}

/** An idle function is frozen after a second, and ended after another. */
const sleepsSoon = ['--pause', '1s', '--idle', '1s']

const check = (answer: string, expected: string | RegExp): void =>
  typeof expected === 'string' ? assert.equal(answer, expected) : assert.match(answer, expected)

export function serverSuite(cases: readonly ServerCase[]): void {
  for (const runtime of runtimes) suiteOn(runtime, cases)
}

function suiteOn(runtime: RuntimeName, cases: readonly ServerCase[]): void {
  describe(`an unmodified server on ${runtime}`, { concurrency: 3, skip: missingRuntime(runtime) }, () => {
    let place: Place
    before(async () => {
      place = await createPlace(runtime)
    })
    after(() => place[Symbol.asyncDispose]())

    for (const { title, name, needs = [], image, options = [], ask, expected, path = 'kernel' } of cases) {
      test(`${title}, serves, is frozen, woken, ended, started and redeployed`, {
        skip: missingFor(needs),
      }, async () => {
        const deploy = async (version: string) =>
          place.deploy(name, await image(version), '-e', `VERSION=${version}`, ...sleepsSoon, ...options)
        const answers = async (version: string) =>
          check(await (ask ?? ((at, of) => at.get(of)))(place, name), expected(version))
        const { contract } = await deploy('1')
        assert.equal(contract, 'listen')
        await answers('1')
        await answers('1')
        assert.equal(await place.pathOf(name), path)
        await place.reaches(name, 'paused')
        await answers('1')
        await place.reaches(name, 'idle')
        await answers('1')
        assert.equal((await deploy('2')).contract, 'listen')
        await eventually(`${name} serves its new version`, () => answers('2'), { timeoutMs: 30_000 })
        await place.remove(name)
      })
    }
  })
}
