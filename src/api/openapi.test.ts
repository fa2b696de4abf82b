import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { errorCodes } from '../values/errors.ts'
import { operations } from './contract.ts'
import { renderOpenApi } from './openapi.ts'

test('renderOpenApi() has every call of the contract, with its parameters, body and answers', () => {
  const document = renderOpenApi('1.2.3') as {
    info: { version: string }
    paths: Record<
      string,
      Record<string, { parameters: { name: string; in: string }[]; responses: object; requestBody?: object }>
    >
  }
  assert.equal(document.info.version, '1.2.3')
  for (const { method, path } of Object.values(operations)) {
    assert.ok(document.paths[path.replace(':name', '{name}')]?.[method.toLowerCase()], `${method} ${path}`)
  }
  const deploy = document.paths['/api/new']?.['post']
  const parameters = deploy?.parameters.map(({ name, in: where }) => `${where} ${name}`)
  for (const one of ['header X-Image-Name', 'query memory', 'query max', 'query health'])
    assert.ok(parameters?.includes(one), one)
  assert.ok(deploy?.requestBody)
  const remove = document.paths['/api/functions/{name}']?.['delete']
  assert.deepEqual(
    remove?.parameters.map(({ name, in: where }) => `${where} ${name}`),
    ['path name'],
  )
  assert.ok(remove && '404' in remove.responses && '403' in remove.responses)
  assert.doesNotThrow(() => JSON.stringify(document))
})

test('docs/errors.md tells of every error code, with its status, and of no other', () => {
  const text = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  const told = [...text.matchAll(/^\| `([A-Z_]+)` \| (\d{3}) \|/gm)].map(([, code, status]) => [
    code,
    Number(status),
  ])
  const codes = Object.entries(errorCodes).map(([code, { status }]) => [code, status])
  assert.deepEqual(told.sort(), codes.sort())
})
