import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { InjectOptions } from 'fastify'
import { FaasError } from '../values/errors.ts'
import { createFakePlatform, testName } from './fake-platform.ts'
import type { Platform } from './platform.ts'
import { createApi } from './server.ts'

async function start(context: TestContext, overrides: Partial<Platform> = {}) {
  const platform = createFakePlatform(overrides)
  const reported: string[] = []
  const app = await createApi({ platform, report: ({ error }) => reported.push(error.code) })
  context.after(() => app.close())
  const deploy = (name: string, url = '/api/new', headers = {}) =>
    app.inject({
      method: 'POST',
      url,
      headers: { 'x-image-name': name, 'content-type': 'application/x-www-form-urlencoded', ...headers },
      payload: Buffer.from('archive'),
    })
  const codeOf = async (request: InjectOptions | string): Promise<string> => {
    const response = await app.inject(request)
    const { error } = response.json<{ error: { code: string; message: string } }>()
    return `${response.statusCode} ${error.code}`
  }
  return { app, platform, deploy, codeOf, reported }
}

test('GET /api/list answers {} when there are no functions', async (context) => {
  const { app } = await start(context)
  const response = await app.inject('/api/list')
  assert.equal(response.statusCode, 200)
  assert.equal(response.body, '{}\n')
})

test("POST /api/new takes what curl --data-binary sends and answers in the guide's form and order", async (context) => {
  const { deploy, platform, app } = await start(context)
  const response = await deploy('fibonacci')
  assert.equal(response.statusCode, 200)
  assert.equal(
    response.body,
    '{"name":"fibonacci","ip":"fd00:faa5:1::a","cmd":["python3","/app/handler.py"],"contract":"fd","version":1}\n',
  )
  assert.equal(platform.received.get(testName('fibonacci')), 'archive'.length)
  const list = await app.inject('/api/list')
  assert.equal(
    list.json<Record<string, { rootfs: string }>>()['fibonacci']?.rootfs,
    '/var/lib/faasd/images/fibonacci/rootfs',
  )
  assert.deepEqual((await app.inject('/api/ip/fibonacci')).json(), {
    name: 'fibonacci',
    ip: 'fd00:faa5:1::a',
  })
})

test('POST /api/new takes any content type, and none', async (context) => {
  const { deploy, app } = await start(context)
  for (const type of ['application/json', 'application/x-tar', 'text/plain']) {
    assert.equal((await deploy('one', '/api/new', { 'content-type': type })).statusCode, 200)
  }
  const headers = { 'x-image-name': 'one' }
  const response = await app.inject({
    method: 'POST',
    url: '/api/new',
    headers,
    payload: Buffer.from('archive'),
  })
  assert.equal(response.statusCode, 200)
})

test('POST /api/new streams its steps and the result as lines of JSON when asked to', async (context) => {
  const { deploy } = await start(context)
  const response = await deploy('one', '/api/new', { accept: 'application/x-ndjson' })
  const lines = response.body
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown)
  assert.deepEqual(lines, [
    { step: 'receive', message: 'reading the archive' },
    {
      result: {
        name: 'one',
        ip: 'fd00:faa5:1::a',
        cmd: ['python3', '/app/handler.py'],
        contract: 'fd',
        version: 1,
      },
    },
  ])
})

test('POST /api/new ends its lines of JSON with the error when it fails after the first step', async (context) => {
  const { app, reported } = await start(context, {
    async deploy(_name, _body, _options, _signal, onProgress) {
      onProgress({ step: 'unpack', message: 'layer 1' })
      throw new FaasError('RUNTIME_FAILED', 'no', { hint: 'look' })
    },
  })
  const headers = { 'x-image-name': 'one', accept: 'application/x-ndjson' }
  const response = await app.inject({ method: 'POST', url: '/api/new', headers })
  assert.deepEqual(JSON.parse(response.body.trim().split('\n').at(-1) ?? ''), {
    error: { code: 'RUNTIME_FAILED', message: 'no', hint: 'look' },
  })
  assert.deepEqual(reported, ['RUNTIME_FAILED'])
})

test('a rollback takes its version from the body, the query or neither, and not from both', async (context) => {
  const asked: unknown[] = []
  const { app, deploy, codeOf } = await start(context, {
    async rollback(name, version) {
      asked.push(version)
      return { warnings: [], version: 3, contract: 'listen', cmd: [], ip: '::', name }
    },
  })
  await deploy('one')
  const url = '/api/functions/one/rollback'
  const json = { 'content-type': 'application/json' }
  for (const request of [
    { url },
    { url: `${url}?version=2` },
    { url, headers: json, payload: '{}' },
    { url, headers: json, payload: '{"version":2}' },
    { url: `${url}?version=2`, headers: json, payload: '{"version":"2"}' },
    { url, headers: json, payload: '{"version":"sha256:abcdef"}' },
  ]) {
    const response = await app.inject({ method: 'POST', ...request })
    assert.equal(response.body, '{"name":"one","ip":"::","cmd":[],"contract":"listen","version":3}\n')
  }
  assert.deepEqual(asked, [undefined, '2', undefined, '2', '2', 'sha256:abcdef'])
  for (const [request, code] of [
    [{ url: `${url}?version=1`, headers: json, payload: '{"version":2}' }, '400 REQUEST_INVALID'],
    [{ url, headers: json, payload: '{"version":-1}' }, '400 REQUEST_INVALID'],
    [{ url, headers: json, payload: '{"versoin":1}' }, '400 REQUEST_INVALID'],
    [{ url: `${url}?versoin=1` }, '400 OPTION_INVALID'],
    [{ url: '/api/functions/../rollback' }, '404 NOT_FOUND'],
    [{ url: '/api/functions/Bad/rollback' }, '400 NAME_INVALID'],
  ] as const) {
    assert.equal(await codeOf({ method: 'POST', ...request }), code)
  }
  assert.equal(asked.length, 6)
})

test('--health is a path, checked at the door', async (context) => {
  const { deploy, platform } = await start(context)
  for (const path of ['healthz', '', '/a b', '/a#b', '/a\r\nX: y', '/\u00e9', `/${'a'.repeat(2000)}`]) {
    const response = await deploy('one', `/api/new?health=${encodeURIComponent(path)}`)
    assert.equal(response.json<{ error: { code: string } }>().error.code, 'OPTION_INVALID', path)
  }
  assert.equal(platform.received.size, 0)
})

test('POST /api/new hands checked options to the platform', async (context) => {
  const { deploy, platform } = await start(context)
  const query =
    'image=app%3A2&memory=256Mi&cpu=500m&pids=64&tmp=8Mi&env=A%3D1&env=__proto__%3Dx%3Dy&connect-timeout=2s&timeout=1m&queue-timeout=500ms&max=3&health=%2Fhealthz%3Ffull%3D1'
  assert.equal((await deploy('one', `/api/new?${query}`)).statusCode, 200)
  const options = platform.options.get(testName('one'))
  assert.deepEqual(Object.entries(options?.env ?? {}), [
    ['A', '1'],
    ['__proto__', 'x=y'],
  ])
  assert.deepEqual(
    { ...options, env: undefined },
    {
      pick: 'app:2',
      limits: { memoryBytes: 256 * 2 ** 20, cpuMillis: 500, pids: 64, tmpBytes: 8 * 2 ** 20 },
      env: undefined,
      timeouts: { connectMs: 2000, totalMs: 60_000, queueMs: 500 },
      maxInstances: 3,
      health: '/healthz?full=1',
    },
  )
})

for (const query of [
  'memory=1',
  'memory=lots',
  'memory=64Mi&memory=64Mi',
  'cpu=0',
  'pids=0',
  'pids=1.5',
  'env=novalue',
  'env=A%00B=1',
  'timeout=30',
  'max=-1',
  'unknown=1',
  '__proto__=1',
]) {
  test(`POST /api/new refuses ?${query} before it reads the body`, async (context) => {
    const { deploy, platform } = await start(context)
    const response = await deploy('one', `/api/new?${query}`)
    assert.equal(response.statusCode, 400)
    assert.equal(response.json<{ error: { code: string } }>().error.code, 'OPTION_INVALID')
    assert.equal(platform.received.size, 0)
  })
}

const badNames: Record<string, string[]> = {
  B56: [''],
  B57: ['..', '.', 'a/b', '%2e%2e%2f', 'a\\b'],
  B58: ['Fib', 'a'.repeat(64), '-a', 'a-', 'a.b', 'a_b'],
  B60: ['a;b', '$INCLUDE', '"a"', 'a\tb', "a'b"],
  B61: ['f\xfcr', 'a'.repeat(8192)],
}
for (const [number, names] of Object.entries(badNames)) {
  test(`${number} a function is not deployed under ${names.map((name) => JSON.stringify(name.slice(0, 20))).join(', ')}`, async (context) => {
    const { deploy, platform } = await start(context)
    for (const name of names) {
      const response = await deploy(name)
      assert.equal(response.statusCode, 400, name)
      assert.equal(response.json<{ error: { code: string } }>().error.code, 'NAME_INVALID')
    }
    assert.equal(platform.received.size, 0)
  })
}

test('B56 B61 a function is not deployed without a name, or with two', async (context) => {
  const { codeOf, app } = await start(context)
  assert.equal(
    await codeOf({ method: 'POST', url: '/api/new', payload: Buffer.from('x') }),
    '400 NAME_INVALID',
  )
  const response = await app.inject({
    method: 'POST',
    url: '/api/new',
    headers: { 'x-image-name': ['one', 'two'] },
  })
  assert.equal(response.statusCode, 400)
})

test('B59 names with a meaning of their own are refused', async (context) => {
  const { deploy } = await start(context)
  for (const name of [
    'ns',
    '@',
    '*',
    'admin',
    'hostmaster',
    'localhost',
    'wpad',
    'isatap',
    'api',
    'dns',
    'vpn',
  ]) {
    const response = await deploy(name)
    assert.equal(response.statusCode, 409, name)
    assert.equal(response.json<{ error: { code: string } }>().error.code, 'NAME_RESERVED')
  }
})

test('B61 B62 B63 names that only look odd work everywhere', async (context) => {
  const { deploy, app } = await start(context)
  const names = ['constructor', 'tostring', 'valueof', '12345', '0x7f', 'xn--mnchen-3ya', 'a'.repeat(63)]
  for (const name of names) assert.equal((await deploy(name)).statusCode, 200)
  const list = JSON.parse((await app.inject('/api/list')).body) as object
  assert.deepEqual(Object.keys(list).sort(), [...names].sort())
  for (const name of names) {
    assert.equal((await app.inject(`/api/ip/${name}`)).json<{ name: string }>().name, name)
    assert.equal((await app.inject(`/api/functions/${name}`)).statusCode, 200)
    assert.equal((await app.inject({ method: 'DELETE', url: `/api/functions/${name}` })).statusCode, 200)
  }
  assert.equal((await app.inject('/api/list')).body, '{}\n')
})

test('what does not exist is 404, whatever its name is', async (context) => {
  const { codeOf } = await start(context)
  for (const name of ['nothing', 'constructor', 'api', 'localhost']) {
    assert.equal(await codeOf(`/api/ip/${name}`), '404 FUNCTION_UNKNOWN')
    assert.equal(await codeOf(`/api/functions/${name}`), '404 FUNCTION_UNKNOWN')
    assert.equal(await codeOf(`/api/functions/${name}/logs`), '404 FUNCTION_UNKNOWN')
    assert.equal(await codeOf(`/api/functions/${name}/stats`), '404 FUNCTION_UNKNOWN')
    assert.equal(await codeOf({ method: 'DELETE', url: `/api/functions/${name}` }), '404 FUNCTION_UNKNOWN')
  }
  assert.equal(await codeOf('/api/ip/%2e%2e%2fx'), '400 NAME_INVALID')
  assert.equal(await codeOf(`/api/ip/${'a'.repeat(8192)}`), '400 NAME_INVALID')
  assert.equal(await codeOf('/api/ip/%zz'), '400 REQUEST_INVALID')
})

test('B67 unknown paths are 404 and wrong methods 405, in the form of errors', async (context) => {
  const { app, codeOf } = await start(context)
  for (const url of ['/', '/api', '/api/', '/api/list/', '//api/list', '/api//list', '/API/list']) {
    assert.equal(await codeOf(url), '404 NOT_FOUND', url)
  }
  for (const [method, url] of [
    ['GET', '/api/new'],
    ['POST', '/api/list'],
    ['PUT', '/api/functions/one'],
    ['PATCH', '/api/vpn/create'],
    ['DELETE', '/api/health'],
    ['OPTIONS', '/api/new'],
  ] as const) {
    assert.equal(await codeOf({ method, url }), '405 METHOD_NOT_ALLOWED', `${method} ${url}`)
  }
  assert.equal((await app.inject({ method: 'PUT', url: '/api/functions/one' })).headers.allow, 'GET, DELETE')
})

test('B66 OPTIONS gets no CORS header', async (context) => {
  const { app } = await start(context)
  for (const url of ['/api/new', '/api/list', '/nothing']) {
    const { headers } = await app.inject({ method: 'OPTIONS', url })
    assert.deepEqual(
      Object.keys(headers).filter((name) => name.startsWith('access-control')),
      [],
    )
  }
})

test('the VPN calls check their bodies and answer as the guide has it', async (context) => {
  const { app, codeOf } = await start(context)
  const post = (payload: object | string, headers = { 'content-type': 'application/json' }) =>
    ({ method: 'POST', url: '/api/vpn/create', payload, headers }) as const
  const created = await app.inject(post({ name: 'laptop', public_key: 'x' }))
  assert.deepEqual(Object.keys(created.json<object>()), ['ipv6', 'server_public_key', 'endpoint'])
  assert.deepEqual(
    (await app.inject('/api/vpn/list')).json<{ name: string }[]>().map(({ name }) => name),
    ['laptop'],
  )
  assert.equal(await codeOf(post({ name: 'laptop', public_key: 'x' })), '409 PEER_EXISTS')
  assert.equal(await codeOf(post({ name: 'laptop' })), '400 REQUEST_INVALID')
  assert.equal(await codeOf(post({ name: 'laptop', public_key: 'x', more: 1 })), '400 REQUEST_INVALID')
  assert.equal(await codeOf(post('{"name"')), '400 REQUEST_INVALID')
  assert.equal(await codeOf(post('{"name":"a","public_key":"b","__proto__":{}}')), '400 REQUEST_INVALID')
  assert.equal(await codeOf(post(`{"name":"${'a'.repeat(70_000)}"}`)), '400 REQUEST_INVALID')
  assert.equal(
    await codeOf(post('name=a', { 'content-type': 'application/x-www-form-urlencoded' })),
    '400 REQUEST_INVALID',
  )
  const invited = await app.inject({ method: 'POST', url: '/api/vpn/invite', payload: { name: 'phone' } })
  assert.deepEqual(Object.keys(invited.json<object>()), ['code', 'expires'])
  assert.equal((await app.inject({ method: 'DELETE', url: '/api/vpn/remove/laptop' })).statusCode, 200)
  assert.equal(await codeOf({ method: 'DELETE', url: '/api/vpn/remove/laptop' }), '404 PEER_UNKNOWN')
})

test("B72 a device's name is a label and nothing else", async (context) => {
  const { codeOf } = await start(context)
  for (const name of ['../../cron.d/x', 'x\n[Interface]\nPostUp=id', '', 'X', '.']) {
    for (const url of ['/api/vpn/create', '/api/vpn/invite']) {
      const payload = url.endsWith('create') ? { name, public_key: 'x' } : { name }
      assert.equal(await codeOf({ method: 'POST', url, payload }), '400 NAME_INVALID')
    }
  }
})

test('logs are lines of text or of JSON', async (context) => {
  const { app, deploy, codeOf } = await start(context)
  await deploy('one')
  const text = await app.inject('/api/functions/one/logs?tail=2')
  assert.equal(
    text.body,
    '2026-01-01T00:00:00.000Z one/1a2b stdout: two\n2026-01-01T00:00:00.000Z one/1a2b stdout: three\n',
  )
  const headers = { accept: 'application/x-ndjson' }
  const json = await app.inject({ url: '/api/functions/one/logs?tail=1', headers })
  assert.equal((JSON.parse(json.body) as { text: string }).text, 'three')
  assert.equal(await codeOf('/api/functions/one/logs?tail=x'), '400 OPTION_INVALID')
})

test('a failure that is ours is reported, one of the caller is not', async (context) => {
  const { codeOf, reported } = await start(context, {
    list: async () => {
      throw new Error('the disk is on fire')
    },
  })
  assert.equal(await codeOf('/api/ip/none'), '404 FUNCTION_UNKNOWN')
  assert.equal(await codeOf('/api/list'), '500 INTERNAL')
  assert.deepEqual(reported, ['INTERNAL'])
})

test('health is 503 when the platform fails, with the checks in the answer', async (context) => {
  const { app } = await start(context, { health: async () => ({ status: 'failing', checks: {} }) })
  const response = await app.inject('/api/health')
  assert.equal(response.statusCode, 503)
  assert.deepEqual(response.json(), { status: 'failing', checks: {} })
})

test('metrics are text of the Prometheus format', async (context) => {
  const { app } = await start(context)
  const response = await app.inject('/metrics')
  assert.match(response.headers['content-type'] as string, /^text\/plain; version=0\.0\.4/)
  assert.match(response.body, /^faasd_up 1$/m)
})

test('HEAD answers as GET without the body', async (context) => {
  const { app } = await start(context)
  const response = await app.inject({ method: 'HEAD', url: '/api/health' })
  assert.equal(response.statusCode, 200)
  assert.equal(response.body, '')
})
