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

/** Looks up a user by uid. A uid without a name is no member of anything. */
export function createFindUser({ exec }: { exec: Exec }): FindUser {
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
