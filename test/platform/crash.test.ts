/**
 * kill -9 of faasd at moments all through a deploy and a removal (hardening §4.3, F1–F15): what was acknowledged holds, what was
 * not leaves the old version or the new one and never a mixture (I1, I2), and the next start puts everything right.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { eventually } from '../../src/host/eventually.ts'
import { actionsImage } from './images.ts'
import { type ApiAnswer, skipReason, startPlatform } from './platform.ts'

/** From the start of the call to the kill. A deploy takes about half a second on a machine that is not busy. */
const deployMomentsMs = [40, 120, 200, 290, 400, 600]
const removeMomentsMs = [10, 60]

test('faasd is killed in the middle of deploys and removals', { skip: skipReason('runc') }, async (t) => {
  await using platform = await startPlatform({ runtime: 'runc' })
  const { server } = platform
  const step = (name: string, body: (t: TestContext) => Promise<void>) => platform.step(t, name, body)
  const archives = await Promise.all(['v0', 'v1'].map((version) => actionsImage(version)))
  const archiveOf = (round: number) => archives[round % 2] ?? ''
  const address = await platform.deployed('kept', archiveOf(0))

  /** Makes the call, kills faasd meanwhile, and answers what the caller got once faasd serves again. */
  const interrupted = async (
    call: () => Promise<ApiAnswer>,
    momentMs: number,
  ): Promise<number | undefined> => {
    const pid = await platform.pidOf('src/daemon/main.ts')
    const answer = call().then(
      ({ status }) => status,
      () => undefined,
    )
    await delay(momentMs)
    await server.exec(['kill', '-9', String(pid)])
    const status = await answer
    await eventually('faasd serves', () => platform.api('GET', '/api/health'), { timeoutMs: 20_000 })
    return status
  }
  const served = () => platform.get(`http://[${address}]/version`, server)

  await step('F1–F15 a redeploy leaves the old version or the new one', async (context) => {
    const told: string[] = []
    let before = 'v0'
    for (const [index, momentMs] of deployMomentsMs.entries()) {
      const wanted = `v${(index + 1) % 2}`
      const status = await interrupted(() => platform.deploy('kept', archiveOf(index + 1)), momentMs)
      await platform.invariants()
      const now = await served()
      if (status === 200) assert.equal(now, wanted, `acknowledged, killed after ${momentMs} ms`)
      assert.ok(now === wanted || now === before, `${now} is served after ${momentMs} ms`)
      told.push(`${momentMs} ms: ${status ?? 'no answer'}, ${now === wanted ? 'new' : 'old'}`)
      // The next round begins from the other version, whatever this one has left.
      if (now !== wanted) assert.equal(await platform.deployed('kept', archiveOf(index + 1)), address)
      before = wanted
    }
    context.diagnostic(told.join('; '))
  })

  await step('F1–F15 a first deploy leaves the function or nothing', async () => {
    for (const [index, momentMs] of deployMomentsMs.filter((_, at) => at % 3 === 1).entries()) {
      const name = `new-${index}`
      const status = await interrupted(() => platform.deploy(name, archiveOf(0)), momentMs)
      await platform.invariants()
      const answer = await platform.api('GET', `/api/ip/${name}`)
      if (status === 200) assert.equal(answer.status, 200)
      if (answer.status === 200) {
        const { ip } = answer.body as { ip: string }
        assert.equal(await platform.get(`http://[${ip}]/version`, server), 'v0')
      } else assert.equal(answer.status, 404)
    }
  })

  await step('a removal leaves the function or nothing', async () => {
    for (const [index, momentMs] of removeMomentsMs.entries()) {
      const name = `gone-${index}`
      await platform.deployed(name, archiveOf(0))
      const status = await interrupted(() => platform.remove(name), momentMs)
      await platform.invariants()
      const { status: found } = await platform.api('GET', `/api/ip/${name}`)
      if (status === 200) assert.equal(found, 404, `acknowledged, killed after ${momentMs} ms`)
      assert.ok(found === 200 || found === 404)
    }
    assert.ok(['v0', 'v1'].includes(await served()))
  })
})
