/**
 * The commands of the deployment guide that the platform was specified by, typed as they stand there, with what it says
 * they print. Left out are those that install what the platform now installs by itself, and those that need systemd units,
 * which are skipped aloud. Needs root.
 */
import { test } from 'node:test'
import { createStage, type Stage } from './stage.ts'
import { parseSteps } from './transcript.ts'

const play = async (stage: Stage, transcript: string): Promise<void> => {
  for (const step of parseSteps(`\`\`\`console\n${transcript.trim()}\n\`\`\``)) await stage.play(step)
}

test('the deployment guide', async (t) => {
  // The guide's client speaks with the server's API; a device reaches it by ssh.
  await using stage = await createStage({ deviceEnv: { FAAS_HOST: 'ssh://root@203.0.113.10' } })
  await stage.play({
    machine: 'server',
    command: 'FAAS_VPN_ENDPOINT=203.0.113.10 faas up',
    expected: ['…', '[init] faasd started successfully'],
    line: 0,
  })

  await t.test('4.1 Verify Services', () =>
    play(
      stage,
      `
server# sudo wg show
interface: wg0
  public key: …
  private key: (hidden)
  listening port: 51820
server# sudo ss -lnp | grep coredns
…
…[fd00:faa5:0:100::1]:53…
…
server# curl http://localhost:8080/api/list
{}
server# ip -6 route show
…
fd00:faa5:0:100::/64 dev wg0 …
…`,
    ),
  )

  await t.test('4.2 Test Function Deployment', () =>
    play(
      stage,
      `
server# cd functions/fibonacci && docker build -t fibonacci . && docker save fibonacci > /tmp/fibonacci.tar
…
server# curl -X POST \\
  -H "X-Image-Name: fibonacci" \\
  --data-binary @/tmp/fibonacci.tar \\
  http://localhost:8080/api/new
{"name":"fibonacci","ip":"fd00:faa5:1:0::a","cmd":["python3","/app/handler.py"],"contract":"fd","version":1}
server# ip -6 addr show dev wg0
…
    inet6 fd00:faa5:1:0::a/128 …
…
server# dig fibonacci.faas AAAA @fd00:faa5:0:100::1 +short
fd00:faa5:1:0::a`,
    ),
  )

  await t.test('4.3 Test VPN Client', () =>
    play(
      stage,
      `
device# ./faas vpn connect
- Generates keypair…
- Registers with server…
- Configures wg-faas interface…
- Tests connectivity…
…
✅ Connected!
device# curl http://fibonacci.faas/?n=10
Fibonacci sequence (10 steps):
0, 1, 1, 2, 3, 5, 8, 13, 21, 34
device# ./faas vpn disconnect
Disconnected.`,
    ),
  )

  await t.test('4.3 on the server itself, without FAAS_HOST and without a program that sets up DNS', () =>
    play(
      stage,
      `
server# ./faas vpn connect --write-resolv-conf
- Generates keypair…
…
✅ Connected!
server# curl http://fibonacci.faas/?n=10
Fibonacci sequence (10 steps):
0, 1, 1, 2, 3, 5, 8, 13, 21, 34
server# ./faas vpn disconnect
Disconnected.`,
    ),
  )

  await t.test('Service Health Checks', () =>
    play(
      stage,
      `
server# sudo wg show wg0
interface: wg0
…
peer: …
…
server# cat /var/lib/faasd/dns/faas.db
$ORIGIN faas.
$TTL 60
…
@       IN  NS  ns.faas.
…
fibonacci IN  AAAA fd00:faa5:1:0::a
…
server# ip -6 addr show dev wg0
…
    inet6 fd00:faa5:0:100::1/64 …
…
server# ip -6 route show
…
fd00:faa5:0:100::/64 dev wg0 …
…`,
    ),
  )

  await t.test('sudo runc list, and the bundle of an instance, while it exists', async () => {
    // The handler waits for a request that does not come.
    await using _caller = stage.lab.server.spawn([
      ...['bash', '-c', 'exec 3<>/dev/tcp/fd00:faa5:1::a/80; sleep 25'],
    ])
    await play(
      stage,
      `
server# sudo runc list
ID …
faas-fibonacci-… running …
server# cd /var/lib/faasd/bundles/faas-* && cat config.json | jq '.mounts[] | select(.destination=="/control.sock")'
{
…
  "destination": "/control.sock",
…
}`,
    )
  })

  await t.test('Resource Usage, and Backup', () =>
    play(
      stage,
      `
server# du -sh /var/lib/faasd/images/*
…	/var/lib/faasd/images/fibonacci
server# ps aux | grep -E 'coredns|faasd|runc'
…
…coredns -conf /etc/coredns/Corefile
…
server# sudo wg show wg0 transfer
…
server# cd /tmp && sudo tar czf faasd-backup-$(date +%Y%m%d).tar.gz \\
  /etc/wireguard/server_*.key \\
  /var/lib/faasd/registry.json \\
  /var/lib/faasd/dns/faas.db \\
  /etc/wireguard/peers/
…`,
    ),
  )

  await t.test('Troubleshooting', () =>
    play(
      stage,
      `
server# sudo wg-quick strip wg0
…
[Interface]
ListenPort = 51820
…
server# sudo ss -lunp | grep 51820
…
…:51820…
…
server# sudo ss -lnp | grep :53
…
…[fd00:faa5:0:100::1]:53…
…
server# dig @fd00:faa5:0:100::1 fibonacci.faas AAAA
…
fibonacci.faas.…AAAA	fd00:faa5:1:0::a
…
server# runc --version
runc version …
…
server# sysctl net.ipv6.conf.all.forwarding
net.ipv6.conf.all.forwarding = 1
server# ip -6 route get fd00:faa5:1:0::a
…fd00:faa5:1:0::a…`,
    ),
  )

  const needsSystemd = 'systemd units are not part of this version'
  for (const command of ['systemctl status wg-quick@wg0 coredns faasd', 'journalctl -u faasd -f']) {
    await t.test(`sudo ${command}`, { skip: needsSystemd }, () => {})
  }
})
