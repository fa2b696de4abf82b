/**
 * A server and a device on which the commands of a document are run as they stand: the server answers at 203.0.113.10, the
 * device reaches it by ssh, and `docker` is a stand-in that saves the archive of the example, since images can be built
 * and pulled with Docker only where there is a registry. /tmp and the home directory are each machine's own.
 */
import { copyFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { toolsDirectory } from '../../packaging/tools/tools.ts'
import { eventually } from '../../src/host/eventually.ts'
import { fibonacciImage } from '../images/build.ts'
import { createLab, type Lab } from '../machines/lab.ts'
import type { Machine, RunningProgram } from '../machines/machine.ts'
import { allowSsh } from '../machines/ssh.ts'
import { isExpected, type Step } from './transcript.ts'

export interface Stage extends AsyncDisposable {
  readonly lab: Lab
  /** The archive of the example, as both machines see it. */
  readonly archive: string
  /**
   * Runs a step and answers its output. Throws when it fails or prints something else than what is expected. `faas up` and
   * `faas logs -f` stay; they have passed as soon as they have printed what is expected.
   */
  play(step: Step): Promise<string>
}

const checkout = join(import.meta.dirname, '../..')
const serverAddress = '203.0.113.10'
const allCodes = Array.from({ length: 256 }, (_, code) => code)
const stays = /^(\w+=\S+ )*(sudo )?faas (up|logs -f)\b/
/** What may not be tried twice; the output of anything else may take a moment to become what is expected. */
const acts =
  /\b(docker|ln|rm|tar|setup)\b|\bfaas (new|rm|down|vpn (invite|connect|disconnect|add|remove))\b|POST|DELETE/
const patienceMs = 20_000

export interface StageOptions {
  /** Variables of the device's shell. */
  readonly deviceEnv?: Readonly<Record<string, string>>
}

export async function createStage({ deviceEnv = {} }: StageOptions = {}): Promise<Stage> {
  await using making = new AsyncDisposableStack()
  const archive = await fibonacciImage()
  const lab = making.use(await createLab({ ownTmp: true }))
  const example = join(lab.directory, 'fibonacci.tar')
  await copyFile(archive, example)
  await lab.server.sh(`ip address add ${serverAddress}/32 dev eth0`)
  await lab.device.sh(`ip route add ${serverAddress}/32 via ${lab.server.ipv4}`)
  for (const machine of [lab.server, lab.device]) {
    await standInForDocker(machine, example)
    // As on a terminal, where curl shows no progress beside an answer.
    await machine.sh('printf "silent\\nshow-error\\n" > ~/.curlrc')
  }
  await allowSsh(lab.device, lab.server)
  await lab.device.sh(
    `sed 's/^[^ ]*/${serverAddress}/' ~/.ssh/known_hosts >~/known; cat ~/known >>~/.ssh/known_hosts; rm ~/known`,
  )

  const tools = { FAAS_TOOLS_DIR: toolsDirectory(process.env) }
  const env = { server: tools, device: { ...tools, ...deviceEnv } }
  const staying: RunningProgram[] = []

  const stay = async (step: Step): Promise<string> => {
    const program = lab[step.machine].spawn(['bash', '-c', step.command], {
      env: env[step.machine],
      cwd: checkout,
    })
    staying.push(program)
    await eventually(
      where(step),
      () => {
        if (!isExpected([...step.expected, '…'], program.output())) throw unexpected(step, program.output())
      },
      { timeoutMs: patienceMs },
    )
    return program.output()
  }

  const runOnce = async (step: Step): Promise<string> => {
    const { stdout, code } = await lab[step.machine].exec(['bash', '-c', `exec 2>&1\n${step.command}`], {
      env: env[step.machine],
      cwd: checkout,
      timeoutMs: 60_000,
      okCodes: allCodes,
    })
    const ok = step.expected.length === 0 || isExpected(step.expected, stdout)
    if (code === 0 && ok) return stdout
    const log = staying.map((program) => program.output().split('\n').slice(-30).join('\n')).join('\n')
    throw unexpected(step, `${stdout}(exit code ${code})\n\nlog:\n${log}`)
  }

  const stack = making.move()
  return {
    lab,
    archive: example,
    play(step) {
      if (stays.test(step.command)) return stay(step)
      if (acts.test(step.command)) return runOnce(step)
      return eventually(where(step), () => runOnce(step), { timeoutMs: patienceMs, intervalMs: 250 })
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

const where = ({ line, machine, command }: Step): string => `line ${line}: ${machine}# ${command}`
const unexpected = (step: Step, output: string): Error =>
  new Error(`${where(step)}\nexpected:\n${step.expected.join('\n')}\ngot:\n${output}`)

async function standInForDocker(machine: Machine, archive: string): Promise<void> {
  const script = `#!/bin/bash
case $1 in
  build) [[ -f \${!#}/Dockerfile ]] && echo sha256:0123456789abcdef ;;
  save) cat '${archive}' ;;
  *) exit 1 ;;
esac
`
  const path = join(machine.directory, 'docker')
  await writeFile(path, script)
  await machine.sh(`install -m 755 '${path}' /usr/local/bin/docker`)
}
