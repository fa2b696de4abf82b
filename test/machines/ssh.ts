/** Real OpenSSH between the machines of a lab: root of one logs in as root on another, by a key made for it. */
import { eventually } from '../../src/host/eventually.ts'
import type { Machine } from './machine.ts'

/** Starts sshd on `server` and lets `client` in. `ssh root@IPV4-OF-SERVER` works when this answers. Needs openssh-server. */
export async function allowSsh(client: Machine, server: Machine): Promise<void> {
  const key = await client.sh(
    'mkdir -p -m 700 ~/.ssh; ssh-keygen -q -t ed25519 -N "" -f ~/.ssh/id_ed25519; cat ~/.ssh/id_ed25519.pub',
  )
  await server.sh(
    `mkdir -p -m 700 ~/.ssh; cat >>~/.ssh/authorized_keys; chmod 600 ~/.ssh/authorized_keys
    usermod --password '*' root
    ssh-keygen -A
    /usr/sbin/sshd -o UsePAM=no -o PidFile=/run/sshd.pid`,
    { input: key },
  )
  await eventually('sshd answers', async () => {
    await client.sh(
      `ssh-keyscan -t ed25519 ${server.ipv4} >~/.ssh/known_hosts 2>/dev/null; [[ -s ~/.ssh/known_hosts ]]`,
    )
  })
}
