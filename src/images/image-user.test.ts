import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { resolveImageUser } from './image-user.ts'

const passwd = `root:x:0:0:root:/root:/bin/sh
# a comment
app:x:1000:1001::/app:/bin/sh
12:x:77:78::/:/bin/sh

broken
huge:x:70000:1::/:/bin/sh
`
const group = `root:x:0:
wheel:x:10:root,app
app:x:1001:
web:x:33:other,app
far:x:99999:app
`

function createRootfs(t: TestContext): string {
  const rootfs = mkdtempSync(join(tmpdir(), 'faasd-user-'))
  t.after(() => rmSync(rootfs, { recursive: true }))
  return rootfs
}

const cases: [user: string, uid: number, gid: number, additionalGids: number[]][] = [
  ['', 0, 0, [10]],
  ['root', 0, 0, [10]],
  ['app', 1000, 1001, [10, 33]],
  ['1000', 1000, 1001, [10, 33]],
  ['app:web', 1000, 33, []],
  ['app:10', 1000, 10, []],
  ['5000', 5000, 0, []],
  ['5000:6000', 5000, 6000, []],
  ['0:0', 0, 0, []],
  ['12', 77, 78, []],
  ['app:', 1000, 1001, [10, 33]],
]

for (const [user, uid, gid, additionalGids] of cases) {
  test(`resolveImageUser() of ${JSON.stringify(user)} is ${uid}:${gid}`, async (t) => {
    const rootfs = createRootfs(t)
    mkdirSync(join(rootfs, 'etc'))
    writeFileSync(join(rootfs, 'etc/passwd'), passwd)
    writeFileSync(join(rootfs, 'etc/group'), group)
    assert.deepEqual(await resolveImageUser(rootfs, user), { uid, gid, additionalGids })
  })
}

for (const user of [
  'nobody',
  'app:nogroup',
  'a:b:c',
  '1e12',
  '70000',
  '999999999999',
  'huge',
  '-1',
  '../x',
  '0:70000',
]) {
  test(`B20 resolveImageUser() refuses ${JSON.stringify(user)}`, async (t) => {
    const rootfs = createRootfs(t)
    mkdirSync(join(rootfs, 'etc'))
    writeFileSync(join(rootfs, 'etc/passwd'), passwd)
    writeFileSync(join(rootfs, 'etc/group'), group)
    await assert.rejects(resolveImageUser(rootfs, user), { code: 'IMAGE_CONFIG_INVALID' })
  })
}

const foreign: Record<string, (etc: string) => void> = {
  'no file': () => {},
  'a link to the file of the host': (etc) => symlinkSync('/etc/passwd', join(etc, 'passwd')),
  'a FIFO': (etc) => execFileSync('mkfifo', [join(etc, 'passwd')]),
  'a directory': (etc) => mkdirSync(join(etc, 'passwd')),
  'a file of 2 GB': (etc) => {
    writeFileSync(join(etc, 'passwd'), passwd)
    truncateSync(join(etc, 'passwd'), 2 ** 31)
  },
}

for (const [what, plant] of Object.entries(foreign)) {
  test(`B20 resolveImageUser() reads no account file where there is ${what}`, async (t) => {
    const rootfs = createRootfs(t)
    mkdirSync(join(rootfs, 'etc'))
    plant(join(rootfs, 'etc'))
    assert.deepEqual(await resolveImageUser(rootfs, '0'), { uid: 0, gid: 0, additionalGids: [] })
    await assert.rejects(resolveImageUser(rootfs, 'root'), { code: 'IMAGE_CONFIG_INVALID' })
  })
}

test('B20 resolveImageUser() follows no link in the place of /etc', async (t) => {
  const rootfs = createRootfs(t)
  symlinkSync('/etc', join(rootfs, 'etc'))
  await assert.rejects(resolveImageUser(rootfs, 'root'), { code: 'IMAGE_CONFIG_INVALID' })
})
