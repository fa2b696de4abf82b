/** Who may call, on real sockets: B64 to B66 and the caller's uid. Needs root only where another user calls. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { request } from 'node:http'
import { test } from 'node:test'
import { codeOf, exchange, serve, statusOf } from './serve.ts'

const nobody = 65_534
const needsRoot = process.getuid?.() === 0 ? false : 'needs root, to call as another user'

const get = (path: string, headers: readonly string[]): string =>
  [`GET ${path} HTTP/1.1`, ...headers, 'Connection: close', '', ''].join('\r\n')

test('B64 only a local Host is let in, on every path', async (context) => {
  const { port } = await serve(context)
  for (const hosts of [
    [],
    ['Host: evil.com'],
    ['Host:'],
    ['Host: localhost', 'Host: localhost'],
    ['Host: localhost', 'Host: evil.com'],
    ['Host: localhost.evil.com'],
    ['Host: 127.0.0.1.nip.io'],
    [`Host: evil.com:${port}`],
  ]) {
    for (const path of ['/api/list', '/nothing', '/openapi.json', '/api/ip/%zz']) {
      const answer = await exchange(port, get(path, hosts))
      assert.equal(`${statusOf(answer)} ${codeOf(answer)}`, '403 HOST_REFUSED', `${hosts.join()} ${path}`)
    }
  }
  for (const host of ['localhost', `localhost:${port}`, '127.0.0.1', `[::1]:${port}`]) {
    assert.equal(statusOf(await exchange(port, get('/api/list', [`Host: ${host}`]))), 200, host)
  }
})

test('B65 requests of web pages are refused, on every path', async (context) => {
  const { port } = await serve(context)
  for (const header of [
    'Origin: http://evil.com',
    'Origin: null',
    'Referer: http://localhost/',
    'Sec-Fetch-Site: cross-site',
  ]) {
    for (const path of ['/api/list', '/nothing']) {
      const answer = await exchange(port, get(path, ['Host: localhost', header]))
      assert.equal(`${statusOf(answer)} ${codeOf(answer)}`, '403 ORIGIN_REFUSED', `${header} ${path}`)
    }
  }
})

test('B66 a preflight gets no Access-Control header', async (context) => {
  const { port } = await serve(context)
  for (const origin of [[], ['Origin: http://evil.com', 'Access-Control-Request-Method: POST']]) {
    const preflight = [
      'OPTIONS /api/new HTTP/1.1',
      'Host: localhost',
      ...origin,
      'Connection: close',
      '',
      '',
    ].join('\r\n')
    const answer = await exchange(port, preflight)
    assert.ok([403, 405].includes(statusOf(answer)))
    assert.doesNotMatch(answer, /access-control/i)
  }
})

/** Calls as nobody, with what every Debian has: bash's own TCP. */
const bashCall = (port: number, { waits }: { waits: boolean }): string =>
  `exec 3<>/dev/tcp/127.0.0.1/${port}; printf 'DELETE /api/vpn/remove/laptop HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3${waits ? '; cat <&3' : ''}`

test('another local user is refused, and told how to become a member', {
  skip: needsRoot,
}, async (context) => {
  const { port } = await serve(context)
  const child = spawn('bash', ['-c', bashCall(port, { waits: true })], { uid: nobody, gid: nobody })
  let answer = ''
  for await (const chunk of child.stdout.setEncoding('utf8')) answer += chunk as string
  assert.equal(`${statusOf(answer)} ${codeOf(answer)}`, '403 CALLER_REFUSED')
  assert.match(answer, /usermod -aG faas/)
})

test('another local user who is a member is let in', { skip: needsRoot }, async (context) => {
  const { port } = await serve(context, {
    findUser: async (uid) => ({ name: 'n', isMember: uid === nobody }),
  })
  const child = spawn('bash', ['-c', bashCall(port, { waits: true })], { uid: nobody, gid: nobody })
  let answer = ''
  for await (const chunk of child.stdout.setEncoding('utf8')) answer += chunk as string
  assert.equal(codeOf(answer), 'PEER_UNKNOWN')
})

test('another local user gains nothing by closing the connection before it is looked at', {
  skip: needsRoot,
}, async (context) => {
  const removed: string[] = []
  const { port, platform } = await serve(context, {
    platform: {
      vpn: {
        remove: async (name: string) => void removed.push(name),
      } as never,
    },
  })
  // The server cannot accept while we wait for this child: the caller's socket is without an owner by then.
  for (let round = 0; round < 5; round++) {
    spawnSync('bash', ['-c', bashCall(port, { waits: false })], { uid: nobody, gid: nobody })
    await exchange(port, get('/api/list', ['Host: localhost']))
  }
  assert.deepEqual(removed, [])
  assert.ok(platform)
})

test('the kernel is asked once a connection', async (context) => {
  let asked = 0
  const { port } = await serve(context, {
    socketOwner: () => {
      asked++
      return 0
    },
  })
  const two =
    'GET /api/list HTTP/1.1\r\nHost: localhost\r\n\r\nGET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
  const answer = await exchange(port, two)
  assert.equal(answer.match(/HTTP\/1\.1 200/g)?.length, 2)
  assert.equal(asked, 1)
})

test('a caller whom the kernel does not know is refused', async (context) => {
  const { port } = await serve(context, { socketOwner: () => undefined })
  assert.equal(codeOf(await exchange(port, get('/api/list', ['Host: localhost']))), 'CALLER_REFUSED')
})

test('both loopback addresses are served where there are two', async (context) => {
  const { port, addresses } = await serve(context)
  for (const host of addresses) {
    assert.equal(statusOf(await exchange(port, get('/api/list', ['Host: localhost']), { host })), 200)
  }
})

test('the UNIX socket is for its owner and group only, and asks for no Host', async (context) => {
  const { socketPath } = await serve(context, { socketOwner: () => undefined })
  assert.equal((await stat(socketPath)).mode & 0o7777, 0o660)
  const status = await new Promise((resolve, reject) => {
    request({ socketPath, path: '/api/list', headers: { host: 'anything' } }, (response) => {
      response.resume()
      resolve(response.statusCode)
    })
      .on('error', reject)
      .end()
  })
  assert.equal(status, 200)
})
