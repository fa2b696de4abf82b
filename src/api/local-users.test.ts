import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Exec } from '../host/exec.ts'
import { createFindUser, findFaasGroup } from './local-users.ts'

/** getent(1) over two small tables. */
function getentOf(passwd: readonly string[], group: readonly string[]): Exec {
  return async (command, [table, key]) => {
    assert.equal(command, 'getent')
    const line = (table === 'passwd' ? passwd : group).find((one) => one.split(':').includes(key ?? ''))
    return line ? { stdout: `${line}\n`, stderr: '', code: 0 } : { stdout: '', stderr: '', code: 2 }
  }
}

const passwd = [
  'alice:x:1000:1000::/home/alice:/bin/sh',
  'bob:x:1001:990::/home/bob:/bin/sh',
  'al:x:1002:1002::/:/bin/sh',
]

test('createFindUser() knows members by name and by primary group, and nobody else', async () => {
  const findUser = createFindUser({ exec: getentOf(passwd, ['faas:x:990:alice,carol']) })
  assert.deepEqual(await findUser(1000), { name: 'alice', isMember: true })
  assert.deepEqual(await findUser(1001), { name: 'bob', isMember: true })
  assert.deepEqual(await findUser(1002), { name: 'al', isMember: false })
  assert.deepEqual(await findUser(4242), { name: '4242', isMember: false })
})

test('createFindUser() finds no member where there is no group, or an empty one', async () => {
  for (const group of [[], ['faas:x:990:']]) {
    const findUser = createFindUser({ exec: getentOf(passwd, group) })
    assert.deepEqual(await findUser(1000), { name: 'alice', isMember: false })
    assert.deepEqual(await findUser(4242), { name: '4242', isMember: false })
  }
})

test('findFaasGroup() answers the gid, or undefined where there is no group', async () => {
  assert.equal(await findFaasGroup({ exec: getentOf([], ['faas:x:990:']) }), 990)
  assert.equal(await findFaasGroup({ exec: getentOf([], []) }), undefined)
})

test('createFindUser() asks once in a while, not for each connection', async () => {
  let asked = 0
  let now = 0
  const getent = getentOf(passwd, ['faas:x:990:alice'])
  const findUser = createFindUser({
    exec: (command, args, options) => {
      asked++
      return getent(command, args, options)
    },
    nowMs: () => now,
  })
  const [one, two] = await Promise.all([findUser(1000), findUser(1000)])
  assert.deepEqual(one, two)
  const once = asked
  now = 4_999
  await findUser(1000)
  assert.equal(asked, once)
  now = 5_001
  await findUser(1000)
  assert.equal(asked, once * 2)
})
