/** Listeners in machines that count who connects. */
import { eventually } from '../../src/host/eventually.ts'
import type { Machine } from '../machines/machine.ts'

export interface Witnesses extends AsyncDisposable {
  /** How many connections they have seen. */
  seen(): number
}

const program = `
  const [address, port] = process.argv.slice(1)
  require('node:net')
    .createServer((socket) => { console.log('seen', socket.remoteAddress); socket.on('error', () => {}).end() })
    .listen({ host: address, port: Number(port) }, () => console.log('ready'))`

async function startWitness(machine: Machine, address: string, port: number): Promise<Witnesses> {
  const run = machine.spawn(['node', '-e', program, address, String(port)])
  await eventually(`a listener on [${address}]:${port}`, () => {
    if (!run.output().includes('ready')) throw new Error(run.output())
  })
  return {
    seen: () => run.output().split('seen').length - 1,
    [Symbol.asyncDispose]: () => run[Symbol.asyncDispose](),
  }
}

/** One listener at each place. */
export async function startWitnesses(
  port: number,
  places: readonly (readonly [Machine, string])[],
): Promise<Witnesses> {
  await using starting = new AsyncDisposableStack()
  const all: Witnesses[] = []
  for (const [machine, address] of places) all.push(starting.use(await startWitness(machine, address, port)))
  const running = starting.move()
  return {
    seen: () => all.reduce((sum, witness) => sum + witness.seen(), 0),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  }
}
