/** Names through the real API: what is no name changes nothing, what is one works everywhere. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { actionsImage } from './images.ts'
import { type ApiAnswer, errorCodeOf, skipReason, startPlatform } from './platform.ts'

const longest = `a${'-b'.repeat(30)}cd`

/** Case, header values of X-Image-Name (none, or several), status. */
const refused: readonly (readonly [string, readonly string[], number])[] = [
  ['B56 absent', [], 400],
  ['B56 empty', [''], 400],
  ...['..', '.', 'a/b', '%2e%2e%2f', 'a\\b', '/etc', '../../x'].map(
    (name) => [`B57 ${name}`, [name], 400] as const,
  ),
  ...['Fibonacci', 'a_b', '-a', 'a-', 'a.b', `${longest}x`].map(
    (name) => [`B58 ${name}`, [name], 400] as const,
  ),
  ...['ns', '@', '*', 'admin', 'hostmaster', 'localhost', 'wpad', 'isatap', 'api', 'dns', 'vpn'].map(
    (name) => [`B59 ${name}`, [name], 409] as const,
  ),
  ...['a;b', 'a $INCLUDE /etc/passwd', '$INCLUDE', '"a"', "a'b", 'a\tb', 'a b'].map(
    (name) => [`B60 ${JSON.stringify(name)}`, [name], 400] as const,
  ),
  ['B61 Unicode', ['fönction'], 400],
  ['B61 8 KB', ['a'.repeat(8192)], 400],
  ['B61 twice', ['one', 'two'], 400],
]
const paths = ['..', '%2e%2e', '%2e%2e%2f', 'a%2fb', 'UPPER', '%00', `${longest}x`]

test('names', { skip: skipReason('runc') }, async (t) => {
  await using platform = await startPlatform({ runtime: 'runc' })
  const { server } = platform
  const archive = await actionsImage('1')
  const step = (name: string, body: (t: TestContext) => Promise<void>) => platform.step(t, name, body)
  const state = () =>
    server.sh(
      'cat /var/lib/faasd/dns/faas.db; cat /var/lib/faasd/registry.json; find /var/lib/faasd | sort; ls /etc/wireguard/peers',
    )
  const deployAs = (names: readonly string[], body = archive): Promise<ApiAnswer> =>
    platform.api(
      'POST',
      '/api/new',
      ...names.flatMap((name) => ['-H', name === '' ? 'X-Image-Name;' : `X-Image-Name: ${name}`]),
      '--data-binary',
      `@${body}`,
    )
  await platform.deployed('kept', archive)
  const before = await state()

  await step('B56–B61 what is no name is refused with a stable code, and nothing is written', async () => {
    for (const [what, names, status] of refused) {
      const answer = await deployAs(names)
      assert.equal(answer.status, status, `${what}: ${JSON.stringify(answer.body)}`)
      const code = status === 409 ? 'NAME_RESERVED' : names.length > 1 ? 'REQUEST_INVALID' : 'NAME_INVALID'
      assert.equal(errorCodeOf(answer), code, what)
    }
    assert.equal(await state(), before)
  })

  await step('B70 a bad name is refused before the body is asked for', async () => {
    const { stdout } = await server.exec([
      'curl',
      '-sS',
      '-v',
      '--stderr',
      '-',
      '-H',
      'Expect: 100-continue',
      '-H',
      'X-Image-Name: ../x',
      '--data-binary',
      `@${archive}`,
      'http://localhost:8080/api/new',
    ])
    assert.match(stdout, /400 Bad Request/)
    assert.doesNotMatch(stdout, /100 Continue/)
  })

  await step('B57 paths with what is no name answer 400 or 404, and nothing happens', async () => {
    for (const path of paths) {
      for (const [method, at] of [
        ['GET', '/api/ip/'],
        ['DELETE', '/api/functions/'],
        ['DELETE', '/api/vpn/remove/'],
      ] as const) {
        const { status } = await platform.api(method, `${at}${path}`, '--path-as-is')
        assert.ok(status === 400 || status === 404, `${method} ${at}${path}: ${status}`)
      }
    }
    assert.equal(await state(), before)
  })

  await step('B58 B62 B63 unusual names work as any other', async () => {
    for (const name of [longest, 'constructor', 'tostring', '42', '0x7f', 'a']) {
      const address = await platform.deployed(name, archive)
      assert.deepEqual((await platform.api('GET', `/api/ip/${name}`)).body, { name, ip: address })
      assert.equal(await platform.get(`http://[${address}]/version`, server), '1')
    }
    assert.deepEqual(Object.keys((await platform.api('GET', '/api/list')).body as object).sort(), [
      '0x7f',
      '42',
      'a',
      longest,
      'constructor',
      'kept',
      'tostring',
    ])
    await platform.invariants()
  })

  await step(
    'B71 deploys of one name at once: one is done, the others are told that it is busy',
    async () => {
      const answers = await Promise.all(Array.from({ length: 6 }, () => platform.deploy('same', archive)))
      const codes = answers.map((answer) => (answer.status === 200 ? 'done' : (errorCodeOf(answer) ?? '')))
      assert.ok(codes.includes('done'), codes.join())
      assert.ok(
        codes.every((code) => code === 'done' || code === 'FUNCTION_BUSY'),
        codes.join(),
      )
      assert.ok(answers.every(({ status }) => status === 200 || status === 409))
      assert.equal(await platform.get('http://same.faas/version', await joined()), '1')
      await platform.invariants()
    },
  )

  await step(
    'F32 deploys of different names side by side all succeed, each at an address of its own',
    async () => {
      const addresses = await Promise.all(
        ['p1', 'p2', 'p3', 'p4'].map((name) => platform.deployed(name, archive)),
      )
      assert.equal(new Set(addresses).size, 4)
      await platform.invariants()
    },
  )

  await step('B72 what is no peer’s name or key is refused, and nothing is written', async () => {
    const files = await server.sh(
      'ls -A /etc/wireguard /etc/wireguard/peers; cat /etc/wireguard/peers/*.conf',
    )
    const key = (await server.sh('wg genkey | wg pubkey')).trim()
    for (const name of ['../../cron.d/x', 'x\n[Interface]\nPostUp=touch /tmp/pwned', '', 'UPPER', 'a b']) {
      const body = JSON.stringify({ name, public_key: key })
      const answer = await platform.api(
        'POST',
        '/api/vpn/create',
        '-H',
        'Content-Type: application/json',
        '-d',
        body,
      )
      assert.equal(answer.status, 400, JSON.stringify(answer.body))
    }
    assert.equal(
      await server.sh('ls -A /etc/wireguard /etc/wireguard/peers; cat /etc/wireguard/peers/*.conf'),
      files,
    )
  })

  async function joined() {
    await platform.join(platform.lab.device, 'laptop')
    return platform.lab.device
  }
})
