import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cgroupFilesOf } from './relay.ts'

for (const { title, text, expected } of [
  {
    title: 'the unified hierarchy alone',
    text: '0::/faasd/faas-web-1\n',
    expected: ['/sys/fs/cgroup/faasd/faas-web-1/cgroup.procs'],
  },
  {
    title: 'separate hierarchies with a unified one beside them, and one that the container is not in',
    text: '9:name=systemd:/a/b\n4:cpu,cpuacct:/a/b\n2:freezer:/\n0::/a/b\n',
    expected: [
      '/sys/fs/cgroup/systemd/a/b/cgroup.procs',
      '/sys/fs/cgroup/cpu,cpuacct/a/b/cgroup.procs',
      '/sys/fs/cgroup/unified/a/b/cgroup.procs',
    ],
  },
]) {
  test(`cgroupFilesOf() names the files of ${title}`, () => assert.deepEqual(cgroupFilesOf(text), expected))
}
