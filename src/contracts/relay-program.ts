/**
 * `relay-program.ts PORT CGROUP_FILE…`: a process of its own in a container's network and cgroups. It accepts from the
 * host's listener, which is its descriptor 3, and copies between each caller and 127.0.0.1:PORT of the container until
 * both have ended. It gives up root before it takes the first caller. Started by relay.ts alone.
 */
import { writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'

const nobody = 65_534
const listenerFd = 3
const backlog = 4096

const [port = '', ...cgroups] = process.argv.slice(2)
// 0 is the writer itself, cgroups(7).
for (const file of cgroups) writeFileSync(file, '0')
process.setgroups?.([])
process.setgid?.(nobody)
process.setuid?.(nobody)

function relay(caller: Socket): void {
  const server = connect({ host: '127.0.0.1', port: Number(port), allowHalfOpen: true })
  const end = (): void => {
    caller.destroy()
    server.destroy()
  }
  server.once('connect', () => {
    caller.pipe(server)
    server.pipe(caller)
    caller.resume()
  })
  for (const socket of [caller, server]) socket.setNoDelay(true).on('error', end)
}

// Half open: who has sent all may still wait for an answer.
createServer({ allowHalfOpen: true, pauseOnConnect: true }, relay).listen({ fd: listenerFd, backlog })
