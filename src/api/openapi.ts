/** The OpenAPI 3.1 document, rendered from the contract (https://spec.openapis.org/oas/v3.1.0). */
import { z } from 'zod'
import { type ErrorCode, errorCodes } from '../values/errors.ts'
import { errorEnvelope, progress } from './answers.ts'
import { type Operation, operations } from './contract.ts'

const everyCallsErrors: readonly ErrorCode[] = [
  'HOST_REFUSED',
  'ORIGIN_REFUSED',
  'CALLER_REFUSED',
  'NOT_READY',
  'INTERNAL',
]

export function renderOpenApi(version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const [id, operation] of Object.entries(operations as Record<string, Operation>)) {
    const path = operation.path.replace(':name', '{name}')
    paths[path] = { ...paths[path], [operation.method.toLowerCase()]: renderOperation(id, operation) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'faasd',
      version,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      description:
        'Served on localhost and on a UNIX socket only, to root and to members of the group faas. ' +
        'Every error is {"error":{"code","message","hint"}} with a stable code.',
    },
    servers: [{ url: 'http://localhost:8080' }],
    paths,
    components: { schemas: { Error: toSchema(errorEnvelope), Progress: toSchema(progress) } },
  }
}

function renderOperation(id: string, operation: Operation): Record<string, unknown> {
  return {
    operationId: id,
    tags: [operation.tag],
    summary: operation.summary,
    ...(operation.description ? { description: operation.description } : {}),
    parameters: renderParameters(operation),
    ...renderRequestBody(operation),
    responses: {
      200: { description: operation.summary, content: renderAnswer(operation) },
      ...renderErrors([...operation.errors, ...everyCallsErrors]),
    },
  }
}

function renderParameters(operation: Operation): unknown[] {
  const name = { type: 'string', pattern: '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$', maxLength: 63 }
  const { properties = {}, required = [] } = operation.query ? toSchema(operation.query, 'input') : {}
  const isRequired = new Set(required as string[])
  return [
    ...(operation.path.includes(':name') ? [{ name: 'name', in: 'path', required: true, schema: name }] : []),
    ...(operation.archive ? [{ name: 'X-Image-Name', in: 'header', required: true, schema: name }] : []),
    ...Object.entries(properties as Record<string, { description?: string }>).map(
      ([key, { description, ...schema }]) => ({
        name: key,
        in: 'query',
        required: isRequired.has(key),
        ...(description ? { description } : {}),
        schema,
      }),
    ),
  ]
}

function renderRequestBody(operation: Operation): Record<string, unknown> {
  if (operation.archive) {
    return {
      requestBody: {
        required: true,
        description: 'The output of `docker save`, or an OCI layout as a tar archive',
        content: { 'application/x-tar': { schema: { type: 'string', format: 'binary' } } },
      },
    }
  }
  if (!operation.body) return {}
  return {
    requestBody: {
      required: operation.bodyOptional !== true,
      content: { 'application/json': { schema: toSchema(operation.body, 'input') } },
    },
  }
}

function renderAnswer(operation: Operation): Record<string, unknown> {
  const schema = toSchema(operation.answer)
  if (operation.text === undefined) return { 'application/json': { schema } }
  const text = { [operation.text]: { schema: { type: 'string' } } }
  return schema.type === 'string' ? text : { ...text, 'application/x-ndjson': { schema } }
}

/** One entry a status, naming the codes that have it. */
function renderErrors(codes: readonly ErrorCode[]): Record<string, unknown> {
  const byStatus = Map.groupBy(codes, (code) => errorCodes[code].status)
  return Object.fromEntries(
    [...byStatus].map(([status, group]) => [
      status,
      {
        description: group.join(', '),
        content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
      },
    ]),
  )
}

function toSchema(schema: z.ZodType, io: 'input' | 'output' = 'output'): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' })
  return rest
}
