/** `faas vpn invite NAME`: prints a code with which one device joins, once. The code alone goes to stdout. */
import { Command } from 'commander'
import { decodeCode } from '../../peers/code.ts'
import { renderEndpoint } from '../../peers/endpoint.ts'
import { type CliContext, isJson, printNote, printResult } from '../context.ts'
import { renderQr } from './qr.ts'

export function inviteCommand(context: CliContext): Command {
  const command = new Command('invite')
    .description('make a code with which one device joins the network')
    .argument('<name>', 'name of the device')
    .option('--qr', 'print the code as a QR code as well')
  return command.action(async (name: string, { qr }: { qr?: boolean }) => {
    const { code, expires, warning } = await context.createClient().call('vpnInvite', { body: { name } })
    const endpoint = renderEndpoint(decodeCode(code).endpoint)
    if (warning !== undefined) printNote(context, `⚠ ${warning}`)
    printResult(context, command, { name, code, expires, endpoint, ...(warning && { warning }) }, () =>
      qr ? `${code}\n\n${renderQr(code)}` : code,
    )
    if (isJson(command)) return
    printNote(context, `on the device, run:  sudo faas vpn connect CODE`)
    printNote(context, `the code works once, until ${expires}; the device connects to ${endpoint} by UDP`)
  })
}
