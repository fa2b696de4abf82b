/** `postgres-client.ts HOST PORT SQL`: asks a PostgreSQL server as postgres, without a password, and prints the first column. */
import { connect } from 'node:net'

const [host = '', port = '5432', sql = ''] = process.argv.slice(2)
const socket = connect(Number(port), host)

/** A message of the protocol, version 3: a letter (none for the first), the length, the body. */
function message(letter: string, body: Buffer): Buffer {
  const length = Buffer.alloc(4)
  length.writeInt32BE(body.length + 4)
  return Buffer.concat([Buffer.from(letter), length, body])
}

const version = Buffer.from([0, 3, 0, 0])
socket.on('connect', () =>
  socket.write(message('', Buffer.concat([version, Buffer.from('user\0postgres\0\0')]))),
)
let received = Buffer.alloc(0)
let asked = false
socket.on('data', (part: Buffer) => {
  received = Buffer.concat([received, part])
  while (received.length >= 5) {
    const length = received.readInt32BE(1) + 1
    if (received.length < length) return
    onMessage(String.fromCharCode(received[0] ?? 0), received.subarray(5, length))
    received = received.subarray(length)
  }
})
socket.on('error', fail)
socket.on('end', () => fail(new Error('the server has closed the connection')))

function onMessage(letter: string, body: Buffer): void {
  if (letter === 'E') fail(new Error(body.toString().replaceAll('\0', ' ')))
  // ReadyForQuery, after the login and after the answer.
  if (letter === 'Z') {
    if (asked) process.exit(0)
    asked = true
    socket.write(message('Q', Buffer.from(`${sql}\0`)))
  }
  // DataRow: the number of columns, and of each its length and text.
  if (letter === 'D') process.stdout.write(`${body.subarray(6, 6 + body.readInt32BE(2)).toString()}\n`)
}

function fail(error: Error): never {
  process.stderr.write(`${error.message}\n`)
  process.exit(1)
}
