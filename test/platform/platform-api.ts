/** The API of the platform in a machine, from outside of the machine, and functions as their callers see them. */
import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Deployed } from '../../src/api/answers.ts'
import { type Client, createClient, type DeployCall } from '../../src/api/client.ts'
import { createTransport } from '../../src/api/transport.ts'
import { parseFunctionName } from '../../src/values/names.ts'
import { buildArchive, type TestImage } from '../images/build.ts'
import type { TarEntry } from '../images/tar.ts'
import type { Machine } from '../machines/machine.ts'

/** Through the machine's own root, as its files are seen from here. */
export const clientOf = (machine: Machine): Client =>
  createClient({ transport: createTransport(`unix:///proc/${machine.pid}/root/run/faasd/api.sock`) })

export const deploy = (
  client: Client,
  name: string,
  archive: string,
  query: DeployCall['query'] = {},
): Promise<Deployed> => client.deploy(parseFunctionName(name), createReadStream(archive), { query })

/** The body of one GET, asked for in the machine. */
export const getText = (machine: Machine, url: string): Promise<string> =>
  machine.sh(`curl -sS -g --fail --max-time 20 '${url}'`)

export const urlOf = (ip: string): string => `http://[${ip}]/`

/** One archive with server.py as an image for each mark, `server:MARK`, which answers with its mark. */
export async function serverArchive(...marks: readonly string[]): Promise<string> {
  const handler = await readFile(join(import.meta.dirname, 'server.py'), 'utf8')
  const images = marks.map((mark): TestImage => {
    const app: TarEntry[] = [
      { path: 'app', type: 'directory' },
      { path: 'app/server.py', content: `${handler}# ${mark}\n` },
    ]
    const config = { Cmd: ['python3', '/app/server.py'], Env: ['PATH=/usr/bin:/bin', `ANSWER=${mark}`] }
    return { name: `server:${mark}`, base: 'python', layers: [app], config }
  })
  return buildArchive(images)
}
