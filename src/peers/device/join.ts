/** Asks the join service for membership, through the tunnel that the invitation's one-time key opens. */
import { request } from 'node:http'
import { z } from 'zod'
import type { Clock } from '../../host/clock.ts'
import { joinPort, serverAddress } from '../../net/addresses.ts'
import { type ErrorCode, errorCodes, FaasError } from '../../values/errors.ts'
import { type Ipv6, parseIpv6 } from '../../values/ipv6.ts'
import { parsePeerName } from '../../values/names.ts'
import { type PublicKey, parsePublicKey } from '../keys.ts'

const text = z.string().max(300)
const answer = z.object({
  name: text.transform(parsePeerName),
  ipv6: text.transform(parseIpv6),
  server_public_key: text.transform(parsePublicKey),
  endpoint: text,
  function: text.optional(),
})
export type Joined = z.infer<typeof answer>

const refusal = z.object({
  error: z.object({ code: text, message: z.string().max(2000), hint: z.string().max(2000).optional() }),
})

const attemptMs = 5_000
const attempts = 3
const maxAnswerBytes = 16 * 1024

/**
 * Registers `publicKey`; the same key may ask again, so a lost answer is asked for once more. Throws what the server
 * refuses with (INVITATION_INVALID, PEER_EXISTS, …), or VPN_UNREACHABLE.
 */
export async function requestMembership(
  publicKey: PublicKey,
  { from, clock, signal }: { from: Ipv6; clock: Clock; signal: AbortSignal },
): Promise<Joined> {
  let last: unknown
  for (let attempt = 0; attempt < attempts; attempt++) {
    signal.throwIfAborted()
    try {
      return await post(publicKey, from, signal)
    } catch (error) {
      if (error instanceof FaasError) throw error
      last = error
      await clock.sleep(1_000, signal)
    }
  }
  signal.throwIfAborted()
  const why = last instanceof Error ? last.message : String(last)
  throw new FaasError('VPN_UNREACHABLE', `the server's join service does not answer: ${why}`, {
    hint: 'look whether faasd runs on the server (faas status), then use the same code again',
    cause: last,
  })
}

function post(publicKey: PublicKey, from: Ipv6, signal: AbortSignal): Promise<Joined> {
  const body = JSON.stringify({ public_key: publicKey })
  return new Promise((resolve, reject) => {
    const call = request({
      host: serverAddress,
      port: joinPort,
      localAddress: from,
      path: '/join',
      method: 'POST',
      agent: false,
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      signal: AbortSignal.any([signal, AbortSignal.timeout(attemptMs)]),
    })
    call.once('error', reject)
    call.once('response', (response) => {
      let received = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        received += chunk
        if (received.length > maxAnswerBytes) response.destroy(new Error('the answer is too long'))
      })
      response.once('error', reject)
      response.once('end', () => {
        try {
          resolve(parseAnswer(response.statusCode ?? 0, received))
        } catch (error) {
          reject(error)
        }
      })
    })
    call.end(body)
  })
}

function parseAnswer(status: number, received: string): Joined {
  const content: unknown = JSON.parse(received)
  if (status === 200) return answer.parse(content)
  const { error } = refusal.parse(content)
  const code: ErrorCode = Object.hasOwn(errorCodes, error.code) ? (error.code as ErrorCode) : 'INTERNAL'
  throw new FaasError(code, error.message, error.hint === undefined ? {} : { hint: error.hint })
}
