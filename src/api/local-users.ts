/** Local users and the group `faas`, as the name service switch has them: getent(1), so that LDAP and its like count. */
import type { Exec } from '../host/exec.ts'
import type { FindUser } from './access.ts'

const groupName = 'faas'
/** getent: 2 says that a key was not found. */
const okCodes = [0, 2]

/** The gid of the group `faas`; undefined when there is none. */
export async function findFaasGroup({ exec }: { exec: Exec }): Promise<number | undefined> {
  const { stdout } = await exec('getent', ['group', groupName], { okCodes })
  const gid = stdout.split(':')[2]
  return gid === undefined || gid === '' ? undefined : Number(gid)
}

/** A change of the group takes this long to count: somebody who connects in a loop must not cost a process each time. */
const rememberedMs = 5_000
const maxRemembered = 1_000

/** Looks up a user by uid, and remembers the answer for a moment. A uid without a name is no member of anything. */
export function createFindUser({
  exec,
  nowMs = () => performance.now(),
}: {
  exec: Exec
  nowMs?: () => number
}): FindUser {
  const remembered = new Map<number, { readonly user: ReturnType<FindUser>; readonly untilMs: number }>()
  const look = createLookUp(exec)
  return (uid) => {
    const known = remembered.get(uid)
    if (known && known.untilMs > nowMs()) return known.user
    if (remembered.size >= maxRemembered) remembered.clear()
    const user = look(uid)
    remembered.set(uid, { user, untilMs: nowMs() + rememberedMs })
    user.catch(() => remembered.delete(uid))
    return user
  }
}

function createLookUp(exec: Exec): FindUser {
  return async (uid) => {
    const user = await exec('getent', ['passwd', String(uid)], { okCodes })
    const [name = '', , , primaryGid = ''] = user.stdout.trim().split(':')
    if (name === '') return { name: String(uid), isMember: false }
    const group = await exec('getent', ['group', groupName], { okCodes })
    const [, , gid, members = ''] = group.stdout.trim().split(':')
    const isMember = gid !== undefined && (gid === primaryGid || members.split(',').includes(name))
    return { name, isMember }
  }
}
