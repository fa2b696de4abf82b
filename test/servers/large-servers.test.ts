/** PostgreSQL, whose image has 180 MB: only with FAAS_TEST_LONG=1. */
import { join } from 'node:path'
import { test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { type ServerCase, serverSuite } from './conformance.ts'
import * as images from './images.ts'
import { deviceAddress } from './place.ts'

const cases: readonly ServerCase[] = [
  {
    title: 'PostgreSQL, whose entrypoint makes its database and changes to another user',
    name: 'postgres',
    image: images.postgresServer,
    options: ['--port', '5432:5432', '--tmp', '256Mi', '--memory', '1Gi', '--connect-timeout', '60s'],
    async ask({ lab }, name) {
      const client = join(import.meta.dirname, 'postgres-client.ts')
      const sql = "select inet_client_addr() || ' ' || 6 * 7"
      const ask = [process.execPath, client, `${name}.faas`, '5432', sql]
      // It listens some time before it lets anybody in: its clients know the answer "the database system is starting up".
      return await eventually(`${name} is open`, async () => (await lab.device.exec(ask)).stdout, {
        timeoutMs: 60_000,
        intervalMs: 200,
      })
    },
    expected: () => `${deviceAddress}/128 42\n`,
  },
]

if (process.env.FAAS_TEST_LONG === '1') serverSuite(cases)
else test('PostgreSQL', { skip: 'takes a minute: FAAS_TEST_LONG=1 runs it' }, () => {})
