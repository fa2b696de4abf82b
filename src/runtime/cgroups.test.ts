import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { cgroupPath, createCgroups, parseCgroupMounts, renderResources } from './cgroups.ts'
import { defaultLimits } from './container.ts'

const limits = { ...defaultLimits, memoryBytes: 64 << 20, cpuMillis: 250, pids: 16 }
const deny = [{ allow: false, access: 'rwm' }]

test('renderResources() gives version 2 an OOM group, since its kernel can end a container as a whole', () => {
  assert.deepEqual(renderResources(limits, { version: 2, swap: true, hierarchies: [] }), {
    devices: deny,
    memory: { limit: 67108864, swap: 67108864 },
    cpu: { quota: 25000, period: 100000 },
    pids: { limit: 16 },
    unified: { 'memory.oom.group': '1' },
  })
})

test('renderResources() asks a kernel that cannot limit swap to avoid it', () => {
  const { memory, unified } = renderResources(limits, { version: 1, swap: false, hierarchies: [] })
  assert.deepEqual(memory, { limit: 67108864, swappiness: 0 })
  assert.equal(unified, undefined)
})

test('renderResources() never asks for a CPU quota below the 1 ms that the kernel takes', () => {
  const { cpu } = renderResources({ ...limits, cpuMillis: 1 }, { version: 2, swap: true, hierarchies: [] })
  assert.deepEqual(cpu, { quota: 1000, period: 100000 })
})

test('parseCgroupMounts() finds hierarchies of both versions behind any optional fields', () => {
  const mountinfo = [
    '22 27 0:21 / /proc rw,relatime - proc proc rw',
    '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct',
    '41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw',
    '',
  ].join('\n')
  assert.deepEqual(parseCgroupMounts(mountinfo), [
    { mountPoint: '/sys/fs/cgroup/cpu,cpuacct', type: 'cgroup' },
    { mountPoint: '/sys/fs/cgroup/unified', type: 'cgroup2' },
  ])
})

test('cgroupPath() is absolute: a relative one would lie below the cgroup of the runtime', () => {
  assert.equal(cgroupPath('faasd', 'faas-x-1'), '/faasd/faas-x-1')
})

test('createCgroups() refuses a parent that is the root or leads out of the hierarchy', () => {
  for (const parent of ['', '/', '..', 'a/../b', '/faasd', 'a//b', '-x', 'a/']) {
    const facts = { version: 2, swap: true, hierarchies: [] } as const
    assert.throws(() => createCgroups({ facts, parent }), /is no name for a parent cgroup/, parent)
  }
})

test('Cgroups remove what was nested below a container, in every hierarchy, and then the parent', async () => {
  const root = await mkdtemp(join(tmpdir(), 'cgroup-'))
  try {
    const hierarchies = [join(root, 'memory'), join(root, 'pids'), join(root, 'absent')]
    const cgroups = createCgroups({ facts: { version: 1, swap: true, hierarchies }, parent: 'a/b' })
    for (const path of ['memory/a/b/faas-x', 'memory/a/b/faas-y/nested', 'pids/a/b/faas-y', 'memory/other'])
      await mkdir(join(root, path), { recursive: true })
    assert.deepEqual(await cgroups.list(), ['faas-x', 'faas-y'])
    await cgroups.remove('faas-y')
    await cgroups.remove('faas-y')
    assert.deepEqual(await cgroups.list(), ['faas-x'])
    assert.deepEqual([await cgroups.has('faas-x'), await cgroups.has('faas-y')], [true, false])
    await cgroups.cleanUp()
    assert.deepEqual(await readdir(join(root, 'memory')), ['a', 'other'])
    assert.deepEqual(await readdir(join(root, 'memory/a')), [])
  } finally {
    await rm(root, { recursive: true })
  }
})
