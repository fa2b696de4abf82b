import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Image, ImageConfig } from '../images/image.ts'
import { defaultLimits } from '../runtime/container.ts'
import { digestOfHex } from '../values/digest.ts'
import { parseIpv6 } from '../values/ipv6.ts'
import { parseFunctionName } from '../values/names.ts'
import { defaultTimeouts, environmentOf, type FunctionOptions, portsOf } from './function.ts'

const config = (exposed: readonly (number | string)[], env: readonly string[] = []): ImageConfig => ({
  entrypoint: [],
  cmd: ['/app'],
  env,
  workingDir: '/',
  user: '',
  exposedPorts: exposed.map((port) => ({
    port: Number.parseInt(String(port), 10),
    protocol: String(port).endsWith('/udp') ? 'udp' : 'tcp',
  })),
  volumes: [],
  stopSignal: 'SIGTERM',
  architecture: 'amd64',
  os: 'linux',
})
const options = (env: readonly string[] = []): FunctionOptions => ({
  limits: defaultLimits,
  timeouts: defaultTimeouts,
  maxInstances: 1,
  minInstances: 0,
  writable: false,
  env,
})

const ports: readonly (readonly [
  what: string,
  config: ImageConfig,
  stated: readonly string[],
  target: number,
])[] = [
  ['8080 where nothing is said', config([]), [], 8080],
  ['the port that is exposed', config([3000]), [], 3000],
  ['8080 of several', config([9000, 80, 8080]), [], 8080],
  ['80 of several', config([9000, 80]), [], 80],
  ['the lowest of others', config([9000, 7000]), [], 7000],
  ['no UDP port', config(['53/udp']), [], 8080],
  ["the image's own PORT before what it exposes", config([80], ['PORT=5000']), [], 5000],
  ["the deploy's PORT before all", config([80], ['PORT=5000']), ['A=b', 'PORT=6000'], 6000],
  ['no PORT that is none', config([80], ['PORT=http', 'PORT=0']), ['PORT=99999'], 80],
]
for (const [what, image, stated, target] of ports) {
  test(`portsOf() takes ${what}`, () =>
    assert.deepEqual(portsOf(image, options(stated)), [{ port: 80, target }]))
}

test("environmentOf() sets PORT below the image's and the deploy's, and the platform's own above all", () => {
  const platform = {
    name: parseFunctionName('app'),
    address: parseIpv6('fd00:faa5:1::a'),
    ports: [{ port: 80, target: 3000 }],
  }
  const environment = (own: readonly string[], stated: readonly string[] = []) => {
    const image: Image = { id: digestOfHex('11'.repeat(32)), layers: [], config: config([], own) }
    return new Set(environmentOf(image, options(stated), platform))
  }
  const always = ['FAAS_NAME=app', 'FAAS_ADDRESS=fd00:faa5:1::a']
  assert.deepEqual(environment([]), new Set(['PORT=3000', ...always]))
  assert.deepEqual(environment(['PORT=1']), new Set(['PORT=1', ...always]))
  assert.deepEqual(environment(['PORT=1'], ['PORT=2', 'FAAS_NAME=x']), new Set(['PORT=2', ...always]))
})
