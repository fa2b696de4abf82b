/** Choosing a runtime by trying it, and containers on the unified cgroup hierarchy where the machine has one beside others. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, statfsSync } from 'node:fs'
import { mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { exec } from '../../src/host/exec.ts'
import { reap } from '../../src/host/native/process.ts'
import { detectBundleHost, writeBundle } from '../../src/runtime/bundle.ts'
import { chooseRuntime, tryRuntime } from '../../src/runtime/choose.ts'
import { createRunc } from '../../src/runtime/runc.ts'
import type { FaasError } from '../../src/values/errors.ts'
import { enterNamespaces, missingFor } from '../net/namespace.ts'
import { createWorld, missingRuntime, prepareTree, type RuntimeName, requirements } from './world.ts'

const cgroupRoot = '/sys/fs/cgroup'
const unified = join(cgroupRoot, 'unified')
const cgroup2Magic = 0x63677270

/** How to try version 2 here: it is all there is, it lies beside others, or it is absent. */
const unifiedAt = (): string | undefined =>
  [cgroupRoot, unified].find((path) => existsSync(path) && statfsSync(path).type === cgroup2Magic)

if (missingFor(requirements) === undefined) await prepareTree()
if (enterNamespaces(import.meta.filename, [...requirements, 'runc'])) {
  test('chooseRuntime() takes crun for `auto` where a container really starts with it, else runc and says why', async () => {
    await using world = await createWorld('runc')
    const reasons: FaasError[] = []
    const deps = {
      exec,
      cgroups: world.cgroups,
      stateRoot: world.stateRoot,
      host: await detectBundleHost(),
      directory: world.directory,
      onRefused: (reason: FaasError) => void reasons.push(reason),
    }
    const before = await readdir(world.directory)
    const chosen = await chooseRuntime('auto', deps)
    assert.equal(chosen.name, reasons.length === 0 ? 'crun' : 'runc')
    for (const { code } of reasons) assert.match(code, /^(RUNTIME_FAILED|PROGRAM_MISSING)$/)
    await tryRuntime(createRunc(deps), deps)
    assert.deepEqual(await world.cgroups.list(), [])
    const left = (await readdir(world.directory)).filter((entry) => entry !== 'state')
    assert.deepEqual(left, before)
    assert.equal((await chooseRuntime('runc', deps)).name, 'runc')
    assert.equal((await chooseRuntime('crun', deps)).name, 'crun')
  })

  for (const name of ['runc', 'crun'] as const) {
    const at = unifiedAt()
    const reason = missingRuntime(name) ?? (at === undefined ? 'requires a cgroup2 hierarchy' : undefined)
    test(`${name} runs and removes a container on cgroup version 2`, reason ? { skip: reason } : {}, () =>
      onUnified(name, at ?? ''),
    )
  }
}

/** Shows `at` as the only hierarchy, and starts a container without limits: its controllers may be bound to version 1. */
async function onUnified(name: RuntimeName, at: string): Promise<void> {
  if (at !== cgroupRoot && existsSync(unified)) execFileSync('mount', ['--bind', at, cgroupRoot])
  await using world = await createWorld(name)
  const host = await detectBundleHost()
  assert.equal(host.cgroups.version, 2)
  const spec = world.spec({ argv: ['/bin/busybox', 'sh', '-c', 'sleep 60 & sleep 60'] })
  const bundle = join(world.directory, spec.id)
  await mkdir(bundle)
  await writeBundle(bundle, spec, host)
  const path = join(bundle, 'config.json')
  const config = JSON.parse(await readFile(path, 'utf8'))
  config.linux.resources = {}
  await writeFile(path, JSON.stringify(config))
  await using output = await open(join(bundle, 'output'), 'w')
  const { pid } = await world.runtime.run({ id: spec.id, bundle, stdout: output.fd, stderr: output.fd })
  const cgroup = join(cgroupRoot, world.cgroups.parent, spec.id)
  await eventually('both processes are in the cgroup', async () =>
    assert.ok((await readFile(join(cgroup, 'cgroup.procs'), 'utf8')).trim().split('\n').length > 1),
  )
  await world.runtime.delete(spec.id)
  assert.equal(existsSync(cgroup), false)
  await eventually('its init has ended', () => assert.equal(reap(pid)?.signal, 9))
  assert.deepEqual(await world.runtime.list(), [])
}
