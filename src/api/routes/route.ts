/** Registers one call of the contract: its input is checked by the contract's schemas before the handler sees it. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { FaasError } from '../../values/errors.ts'
import { type FunctionName, parseFunctionName } from '../../values/names.ts'
import type { AnswerOf, BodyOf, Operation, QueryOf } from '../contract.ts'
import { checked } from '../envelope.ts'

export interface Input<O extends Operation> {
  /** The `:name` of the path, unchecked; empty for a path without one. */
  readonly name: string
  readonly query: QueryOf<O>
  readonly body: BodyOf<O>
}

export function route<O extends Operation>(
  app: FastifyInstance,
  operation: O,
  handler: (input: Input<O>, request: FastifyRequest, reply: FastifyReply) => Promise<AnswerOf<O>>,
): void {
  app.route({
    method: operation.method,
    url: operation.path,
    handler: async (request, reply) => {
      const answer = await handler(readInput(operation, request), request, reply)
      if (operation.text !== undefined) reply.type(operation.text)
      return answer
    },
  })
}

export function readInput<O extends Operation>(
  { query, body, bodyOptional }: O,
  request: FastifyRequest,
): Input<O> {
  const { name = '' } = request.params as { name?: string }
  return {
    name,
    query: (query
      ? checked('OPTION_INVALID', () => query.parse({ ...(request.query as object) }))
      : undefined) as QueryOf<O>,
    body: (body
      ? checked('REQUEST_INVALID', () => body.parse(bodyOptional ? (request.body ?? {}) : request.body))
      : undefined) as BodyOf<O>,
  }
}

/** The name of a function that should exist. A reserved name is as unknown as any other. */
export function existingName(text: string): FunctionName {
  try {
    return parseFunctionName(text)
  } catch (error) {
    if (!(error instanceof FaasError) || error.code !== 'NAME_RESERVED') throw error
    throw new FaasError('FUNCTION_UNKNOWN', `there is no function ${JSON.stringify(text)}`)
  }
}
