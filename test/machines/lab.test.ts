/** The labs themselves: what tests and the demo stand on. Needs root. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { eventually } from '../../src/host/eventually.ts'
import { exec } from '../../src/host/exec.ts'
import { createLab } from './lab.ts'
import { allowSsh } from './ssh.ts'

const labModule = join(import.meta.dirname, 'lab.ts')

test('machines reach each other by IPv4 and IPv6, and nothing else', async () => {
  await using lab = await createLab({ devices: 2 })
  const [first, second] = lab.devices
  assert.ok(first && second)
  await first.exec(['ping', '-c', '1', '-W', '5', lab.server.ipv4])
  await first.exec(['ping', '-c', '1', '-W', '5', second.ipv6])
  const routes = await lab.server.sh('ip -4 route; ip -6 route show default')
  assert.doesNotMatch(routes, /default/)
})

test('a machine writes into its own /etc, /var/lib, /usr and home, and works on the files of the checkout', async () => {
  await using lab = await createLab()
  const mark = `lab-test-${process.pid}`
  const outside = join(import.meta.dirname, 'lab.test.ts')
  await lab.server.sh(
    `touch /etc/${mark} /usr/local/bin/${mark} /var/lib/${mark} /var/lib/faasd/${mark} ~/${mark}`,
  )
  for (const place of ['/etc', '/usr/local/bin', '/var/lib']) assert.ok(!existsSync(join(place, mark)), place)
  assert.ok(existsSync(join(lab.server.directory, 'faasd', mark)))
  assert.equal(
    await lab.device.sh(`cd; pwd; ls -A /var/lib/faasd; [[ ! -e /etc/${mark} ]]`),
    `${lab.device.directory}/home\n`,
  )
  assert.equal(await lab.server.sh(`cat '${outside}'`), readFileSync(outside, 'utf8'))
  assert.equal(await lab.server.sh('pwd', { cwd: import.meta.dirname }), `${import.meta.dirname}\n`)
})

test('exec() and spawn() hand on exit codes, input and signals', async () => {
  await using lab = await createLab()
  assert.equal((await lab.server.exec(['sh', '-c', 'exit 7'], { okCodes: [7] })).code, 7)
  assert.equal((await lab.server.exec(['cat'], { input: 'in and out' })).stdout, 'in and out')
  await using sleeper = lab.server.spawn(['sleep', '1000'])
  await eventually('the sleeper runs', () => lab.server.exec(['pgrep', '-x', 'sleep']))
  sleeper.kill('SIGTERM')
  assert.equal(await sleeper.exited, 128 + 15)
})

for (const runtime of ['runc', 'crun']) {
  test(`${runtime} runs a container in a machine, in the machine's own cgroups`, async () => {
    await using lab = await createLab({ ownTmp: true })
    const cgroups = await lab.server.sh(`
      mkdir -p /tmp/bundle/rootfs && cd /tmp/bundle && ${runtime} spec
      jq '.process.args = ["/bin/cat", "/proc/self/cgroup"] | .process.terminal = false | .root.readonly = true
        | .linux.cgroupsPath = "/faasd/lab-test" | del(.linux.namespaces[] | select(.type == "cgroup"))
        | .mounts += [(("bin", "lib", "lib64", "usr") as $d | { destination: ("/" + $d), source: ("/" + $d), options: ["rbind", "ro"] })]' \
        config.json >changed && mv changed config.json
      mkdir -p rootfs/{bin,lib,lib64,usr,proc,sys,dev}
      ${runtime} run lab-test </dev/null`)
    assert.match(cgroups, /:\/faasd\/lab-test$/m)
  })
}

test('allowSsh() lets root of a device log in on the server, with faas on PATH', async () => {
  await using lab = await createLab()
  await allowSsh(lab.device, lab.server)
  const answer = await lab.device.exec([
    'ssh',
    '-o',
    'BatchMode=yes',
    `root@${lab.server.ipv4}`,
    'hostname; command -v faas',
  ])
  assert.equal(answer.stdout, 'server\n/usr/local/bin/faas\n')
})

test('a lab goes when its maker is killed, with its processes, cgroups and files', async () => {
  const script = `
    const { createLab } = await import(${JSON.stringify(labModule)})
    const lab = await createLab()
    lab.server.spawn(['sleep', '1000'])
    await lab.server.sh('mkdir -p /sys/fs/cgroup/*/faasd/left')
    console.log(lab.directory)
    setInterval(() => {}, 1000)`
  const maker = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const directory = await new Promise<string>((resolve) => {
    maker.stdout.once('data', (line: Buffer) => resolve(line.toString().trim()))
  })
  assert.ok(existsSync(directory))
  maker.kill('SIGKILL')
  await eventually('the lab is gone', async () => {
    assert.ok(!existsSync(directory))
    const name = directory.slice(directory.lastIndexOf('/') + 1)
    const { stdout } = await exec('find', ['/sys/fs/cgroup', '-maxdepth', '2', '-name', `${name}-*`])
    assert.equal(stdout, '')
  })
})
