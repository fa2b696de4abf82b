/**
 * The ids that an image's USER means (Dockerfile reference, "USER"; moby's `user.GetExecUser` is the model), from
 * the image's own /etc/passwd and /etc/group. Those are foreign: no link is followed, nothing but an ordinary file
 * of bounded size is read. Failures: IMAGE_CONFIG_INVALID.
 */
import { constants, type FileHandle, lstat, open } from 'node:fs/promises'
import { join } from 'node:path'
import { FaasError } from '../values/errors.ts'
import { ID_COUNT } from '../values/id-map.ts'

export interface ResolvedUser {
  readonly uid: number
  readonly gid: number
  readonly additionalGids: readonly number[]
}

const maxFileBytes = 4 * 1024 * 1024
/** The kernel's own bound, NGROUPS_MAX, is larger; runc hands these over in one argument list. */
const maxGroups = 1024

export async function resolveImageUser(rootfs: string, user: string): Promise<ResolvedUser> {
  const [userPart = '', groupPart, ...rest] = user.split(':')
  if (rest.length > 0) throw refused(user, 'it has more than one ":"')
  const passwd = await readAccounts(rootfs, 'passwd')
  const groups = await readAccounts(rootfs, 'group')
  const wantedUid = userPart === '' ? 0 : parseId(userPart)
  // Fields of passwd(5): name, password, uid, gid, …
  const account =
    passwd.find((fields) => userPart !== '' && fields[0] === userPart) ??
    passwd.find((fields) => wantedUid !== undefined && parseId(fields[2] ?? '') === wantedUid)
  const uid = account ? parseId(account[2] ?? '') : wantedUid
  if (uid === undefined)
    throw refused(user, `its /etc/passwd has no user ${JSON.stringify(userPart.slice(0, 40))}`)
  const ownGid = (account && parseId(account[3] ?? '')) ?? 0
  if (groupPart !== undefined && groupPart !== '') {
    const wantedGid = parseId(groupPart)
    // Fields of group(5): name, password, gid, members.
    const group = groups.find((fields) => fields[0] === groupPart)
    const gid = (group && parseId(group[2] ?? '')) ?? wantedGid
    if (gid === undefined)
      throw refused(user, `its /etc/group has no group ${JSON.stringify(groupPart.slice(0, 40))}`)
    return inRange(user, { uid, gid, additionalGids: [] })
  }
  const name = account?.[0]
  const additionalGids = groups
    .filter((fields) => name !== undefined && (fields[3] ?? '').split(',').includes(name))
    .map((fields) => parseId(fields[2] ?? ''))
    .filter((gid) => gid !== undefined && gid < ID_COUNT)
  return inRange(user, {
    uid,
    gid: ownGid,
    additionalGids: [...new Set(additionalGids as number[])].slice(0, maxGroups),
  })
}

const parseId = (text: string): number | undefined => (/^[0-9]{1,15}$/.test(text) ? Number(text) : undefined)

function inRange(user: string, resolved: ResolvedUser): ResolvedUser {
  if (resolved.uid < ID_COUNT && resolved.gid < ID_COUNT) return resolved
  throw refused(user, `ids must be below ${ID_COUNT}`)
}

const refused = (user: string, why: string): FaasError =>
  new FaasError(
    'IMAGE_CONFIG_INVALID',
    `the image's user ${JSON.stringify(user.slice(0, 80))} cannot be used: ${why}`,
    {
      hint: 'set USER to a user that the image has, or to a number',
    },
  )

/** The lines of an account file, split into fields; none where there is no such file, or something else is there. */
async function readAccounts(rootfs: string, name: 'passwd' | 'group'): Promise<string[][]> {
  const text = await readPlainFile(join(rootfs, 'etc'), name)
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'))
}

async function readPlainFile(directory: string, name: string): Promise<string> {
  let file: FileHandle | undefined
  try {
    // The mount is read-only and its layers never change: between this look and the next nothing moves.
    if (!(await lstat(directory)).isDirectory()) return ''
    file = await open(join(directory, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const found = await file.stat()
    if (!found.isFile() || found.size > maxFileBytes) return ''
    return await file.readFile('utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (['ENOENT', 'ELOOP', 'ENXIO', 'ENOTDIR'].includes(code)) return ''
    throw error
  } finally {
    await file?.close()
  }
}
