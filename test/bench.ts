/**
 * `./run bench [REQUESTS]`: how long a request takes from a device to the fibonacci example and back, one after another over
 * the whole real path (tunnel, listener, new instance, answer), next to the cost of the tunnel alone. Prints milliseconds.
 * The numbers are this machine's at this moment; nothing is judged by them.
 */
import { fibonacciImage } from './images/build.ts'
import { createLab } from './machines/lab.ts'
import { startPlatform } from './machines/platform.ts'

const requests = Number(process.argv[2] ?? 50)
if (!Number.isInteger(requests) || requests < 1 || requests > 10_000) {
  process.stderr.write('usage: ./run bench [REQUESTS]   (1 to 10000; 50 unless said)\n')
  process.exit(2)
}

/** Runs in the device: sequential GETs, each on a connection of its own, as JSON of milliseconds. */
const client = `
  import { get } from 'node:http'
  const times = []
  for (let i = 0; i < ${requests}; i++) {
    const begin = performance.now()
    await new Promise((resolve, reject) => {
      get('http://fibonacci.faas/?n=10', { agent: false }, (answer) => {
        if (answer.statusCode !== 200) reject(new Error('status ' + answer.statusCode))
        answer.resume().on('end', resolve)
      }).on('error', reject)
    })
    times.push(performance.now() - begin)
  }
  console.log(JSON.stringify(times))`

await using lab = await createLab()
await using _platform = await startPlatform(lab.server)
await lab.server.exec(['faas', 'new', 'fibonacci', await fibonacciImage()], { timeoutMs: 120_000 })
const code = (await lab.server.exec(['faas', 'vpn', 'invite', 'bench'])).stdout.trim()
await lab.device.exec(['faas', 'vpn', 'connect', code], { timeoutMs: 60_000 })

const ping = await lab.device.sh('ping -q -c 20 -i 0.05 fd00:faa5:0:100::1')
const { stdout } = await lab.device.exec(['node', '--input-type=module', '--eval', client], {
  timeoutMs: 600_000,
})
const times = (JSON.parse(stdout) as number[]).toSorted((a, b) => a - b)
const at = (share: number) =>
  (times[Math.min(times.length - 1, Math.floor(share * times.length))] ?? Number.NaN).toFixed(1)

console.log(`tunnel   ${/= ([\d.]+)\/([\d.]+)\/([\d.]+)/.exec(ping)?.[2] ?? '?'} ms (mean round trip)`)
console.log(
  `request  p50 ${at(0.5)} ms   p90 ${at(0.9)} ms   p99 ${at(0.99)} ms   (${times.length} requests, fd contract)`,
)
