/**
 * `./run demo`: the whole story on two machines made for it, every step with the real command and its real answer.
 *
 *   (nothing)            run it and leave nothing
 *   --keep               leave the machines standing
 *   --exec MACHINE CMD…  run a command inside `server` or `device` of the demo that stands
 *   --down               remove the demo that stands
 *
 * Exit code: 0 when the function answered right; 1 when a step failed; 2 for a usage error; 130 after Ctrl-C; of `--exec`
 * the command's own.
 */
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { buildImage, fibonacciImage } from '../../test/images/build.ts'
import { createLab, findKeptLab, type Lab } from '../../test/machines/lab.ts'
import type { Machine } from '../../test/machines/machine.ts'
import { startedLine, startPlatform } from '../../test/machines/platform.ts'

const keptName = 'demo'
const expected = 'Fibonacci sequence (10 steps):\n0, 1, 1, 2, 3, 5, 8, 13, 21, 34'

const print = (text: string) => process.stdout.write(`${text}\n`)
const colored = process.stdout.isTTY
const bold = (text: string) => (colored ? `\x1b[1m${text}\x1b[0m` : text)

class DemoFailure extends Error {}

async function main(args: readonly string[]): Promise<number> {
  const [option, ...rest] = args
  switch (option) {
    case undefined:
      return await play(false)
    case '--keep':
      return await play(true)
    case '--exec':
      return await runInside(rest)
    case '--down':
      return await takeDown()
    default:
      process.stderr.write(`demo: ${option} is no option; there are --keep, --exec MACHINE CMD… and --down\n`)
      return 2
  }
}

async function play(keep: boolean): Promise<number> {
  const interrupted = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted.abort())
  const begin = performance.now()
  if (keep && (await findKeptLab(keptName)) !== undefined) {
    process.stderr.write('a demo stands already; ./run demo --down removes it\n')
    return 1
  }
  const lab = await createLab(keep ? { keptAs: keptName } : {})
  let standing = false
  try {
    await tellStory(lab, interrupted.signal)
    standing = keep
    print(`\n${bold('✅ The demo is complete')} (${((performance.now() - begin) / 1000).toFixed(1)} s).`)
    if (keep) {
      print('The machines stand. Try:')
      print('  ./run demo --exec server faas list')
      print('  ./run demo --exec device curl http://fibonacci.faas/?n=20')
      print('  ./run demo --down')
    }
    return 0
  } catch (error) {
    if (interrupted.signal.aborted) {
      print('\ninterrupted; removing the machines')
      return 130
    }
    process.stderr.write(`\n✖ ${error instanceof Error ? error.message : String(error)}\n`)
    if (!(error instanceof DemoFailure))
      process.stderr.write(`${error instanceof Error ? error.stack : ''}\n`)
    return 1
  } finally {
    if (!standing) await lab[Symbol.asyncDispose]()
  }
}

async function tellStory(lab: Lab, signal: AbortSignal): Promise<void> {
  const { server, device } = lab
  const tar = join(lab.directory, 'fibonacci.tar')
  const onServer = (command: string) => step(server, command, signal)
  const onDevice = (command: string) => step(device, command, signal)

  print(
    bold('Two machines, joined by an "internet" that carries UDP port 51820 and nothing else of the server'),
  )
  print(`  server ${server.ipv4}   device ${device.ipv4}   files in ${lab.directory}`)

  heading('The example as `docker save` writes it')
  await copyFile(await patiently('building the image of functions/fibonacci', fibonacciImage(), signal), tar)
  print(`  ${tar}`)

  heading('The platform starts on the server')
  prompt(server, 'faas up')
  const platform = await patiently('faas up', startPlatform(server), signal)
  const log = (await platform.log()).trimEnd()
  print(indent(log))
  if (!log.includes(startedLine)) throw new DemoFailure('faas up did not say that it serves')

  heading('A function is deployed')
  await onServer('curl http://localhost:8080/api/list')
  await onServer(
    `curl -X POST -H "X-Image-Name: fibonacci" --data-binary @${tar} http://localhost:8080/api/new`,
  )
  await onServer('ip -6 addr show dev wg0')
  await onServer('dig fibonacci.faas AAAA @fd00:faa5:0:100::1 +short')

  heading('The device joins through the tunnel')
  const code = (await onServer('faas vpn invite laptop')).trim().split('\n')[0] ?? ''
  await onDevice(`faas vpn connect ${code}`)

  heading('The device calls the function by name')
  const answer = await onDevice('curl http://fibonacci.faas/?n=10')
  await onServer('wg show')
  if (answer.trimEnd() !== expected) throw new DemoFailure(`the function should have answered:\n${expected}`)

  heading('A server that knows nothing of faasd: busybox httpd, as Debian has it')
  const [one, two] = [join(lab.directory, 'hello-1.tar'), join(lab.directory, 'hello-2.tar')]
  await copyFile(await patiently('building the image', helloImage('one'), signal), one)
  await copyFile(await helloImage('two'), two)
  const sleepSoon = '--pause 1s --idle 1s'
  await onServer(`faas new hello ${one} ${sleepSoon}`)
  await onDevice('curl http://hello.faas/')

  heading('It sleeps when nobody calls, and wakes for the next connection')
  await onServer("until faas list | grep -q '^hello .* idle '; do sleep 0.2; done; faas list")
  await onDevice("curl -w '  woke and answered in %{time_total} s\\n' http://hello.faas/")

  heading('It is redeployed while it is called: no request is lost')
  const calls = `for i in $(seq ${loadCalls}); do curl -sS http://hello.faas/ || echo failed; done | sort | uniq -c`
  const [counts] = await Promise.all([onDevice(calls), onServer(`faas new hello ${two} ${sleepSoon}`)])
  if (counts.includes('failed')) throw new DemoFailure('a request failed during the redeploy')
  const after = await onDevice('curl http://hello.faas/')
  if (after.trim() !== 'hello from version two') throw new DemoFailure('the new version should answer')
}

const loadCalls = 200

/** busybox httpd with one page, as an image that anybody could have built. */
const helloImage = (version: string): Promise<string> =>
  buildImage({
    name: 'hello',
    base: 'busybox',
    layers: [
      [
        { path: 'www', type: 'directory' },
        { path: 'www/index.html', content: `hello from version ${version}\n` },
      ],
    ],
    config: {
      Cmd: ['/bin/busybox', 'httpd', '-f', '-p', '8080', '-h', '/www'],
      ExposedPorts: { '8080/tcp': {} },
    },
  })

/** Prints a command, runs it by bash in the machine, prints what it answered; a failure ends the demo. */
async function step(machine: Machine, command: string, signal: AbortSignal): Promise<string> {
  prompt(machine, command)
  const running = machine.exec(['bash', '-c', command], { signal, timeoutMs: 120_000, okCodes: allCodes })
  const { stdout, stderr, code } = await patiently(command.slice(0, 40), running, signal)
  // curl's progress meter is for terminals.
  const words = stderr.split(/[\r\n]+/).filter((line) => !/^\s*(% Total|Dload|\d+ .*:--)/.test(line))
  if (stdout.trim() !== '') print(indent(stdout.trimEnd()))
  if (words.join('\n').trim() !== '') print(indent(words.join('\n').trim()))
  signal.throwIfAborted()
  if (code !== 0) throw new DemoFailure(`that command failed with exit code ${code}`)
  return stdout
}

/** Waits for `work`; says that it still runs when it takes long. */
async function patiently<T>(what: string, work: Promise<T>, signal: AbortSignal): Promise<T> {
  const done = new AbortController()
  const begin = performance.now()
  const beat = async () => {
    for (;;) {
      await delay(5000, undefined, { signal: done.signal })
      print(`  … ${what}: ${Math.round((performance.now() - begin) / 1000)} s`)
    }
  }
  beat().catch(() => {})
  const aborted = new Promise<never>((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
  try {
    signal.throwIfAborted()
    return await Promise.race([work, aborted])
  } finally {
    done.abort()
    work.catch(() => {})
    aborted.catch(() => {})
  }
}

async function runInside([name, ...argv]: readonly string[]): Promise<number> {
  const lab = await findKeptLab(keptName)
  if (lab === undefined) {
    process.stderr.write('no demo stands; ./run demo --keep makes one\n')
    return 1
  }
  const machine = [lab.server, ...lab.devices].find((candidate) => candidate.name === name)
  if (machine === undefined || argv.length === 0) {
    process.stderr.write('usage: ./run demo --exec server|device CMD…\n')
    return 2
  }
  const program = machine.spawn(argv, { stdio: 'inherit' })
  // A terminal signals the whole process group, the program included; anything else signals only us.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (signal !== 'SIGINT' || !process.stdin.isTTY) program.kill(signal)
    })
  }
  return await program.exited
}

async function takeDown(): Promise<number> {
  const lab = await findKeptLab(keptName)
  if (lab === undefined) print('no demo stands')
  else {
    await lab[Symbol.asyncDispose]()
    print('the demo is removed')
  }
  return 0
}

const allCodes = Array.from({ length: 256 }, (_, code) => code)
const indent = (text: string) => text.replaceAll(/^/gm, '  ')
const heading = (text: string) => print(`\n${bold(`── ${text}`)}`)
const prompt = (machine: Machine, command: string) => print(`${bold(`${machine.name}#`)} ${command}`)

process.exitCode = await main(process.argv.slice(2))
