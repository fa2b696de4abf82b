/** `faas vpn add NAME --public-key KEY`: for a device with WireGuard's own app; prints its configuration, without its private key. */
import { Command } from 'commander'
import { renderForeignConfig } from '../../peers/device/foreign-config.ts'
import { type CliContext, isJson, printNote, printResult } from '../context.ts'
import { renderQr } from './qr.ts'

export function addCommand(context: CliContext): Command {
  const command = new Command('add')
    .description("add a device that uses WireGuard's own app, by its public key")
    .argument('<name>', 'name of the device')
    .requiredOption('--public-key <key>', 'the public key that the app shows')
    .option('--qr', 'print the configuration as a QR code as well')
  return command.action(async (name: string, { publicKey, qr }: { publicKey: string; qr?: boolean }) => {
    const added = await context.createClient().call('vpnCreate', { body: { name, public_key: publicKey } })
    const config = renderForeignConfig(added)
    printResult(context, command, { name, ...added, config }, () =>
      qr ? `${config}\n${renderQr(config)}` : config,
    )
    if (isJson(command)) return
    printNote(
      context,
      `${name} is added. Put these values into its app, beside the key pair that is there already.`,
    )
  })
}
