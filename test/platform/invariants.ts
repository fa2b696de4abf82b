/**
 * What must be true of a server at rest, whatever happened before (hardening §4.2): everything that exists is what the
 * registry says, and nothing is left of what is over. One look, from outside of the platform, by the programs that an
 * operator would use. Each violation is a sentence that begins with the invariant's number.
 */
import { readdir, readFile } from 'node:fs/promises'
import { parseRegistry } from '../../src/functions/registry.ts'
import { functionsPrefix, isInPrefix, peersPrefix } from '../../src/net/addresses.ts'
import { parseTableListing } from '../../src/net/firewall.ts'
import { ID_BASE } from '../../src/values/id-map.ts'
import { formatIpv6, ipv6Bytes } from '../../src/values/ipv6.ts'
import type { Machine } from '../machines/machine.ts'
import { type Platform, pathIn } from './platform.ts'

interface RegisteredFunction {
  readonly address: string
  readonly image: string
  /** Versions that a rollback may want. */
  readonly previous: readonly { readonly image: string }[]
}
type Registered = ReadonlyMap<string, RegisteredFunction>

/** Everything that is wrong now. Empty when all is well. */
export async function findViolations(platform: Platform): Promise<readonly string[]> {
  const { server } = platform
  const text = await readFile(pathIn(server, 'faasd', 'registry.json'), 'utf8').catch(ignoreMissing)
  const functions: Registered = text === undefined ? new Map() : parseRegistry(text).functions
  const found = await Promise.all([
    registeredOnce(functions),
    linkAddresses(server, functions),
    listeners(server, functions),
    names(server, functions),
    remains(server),
    mounts(server, functions),
    store(server, functions),
    peers(server),
    secrets(platform),
  ])
  return found.flat()
}

/** One sentence for what is there and should not be, and one for what should and is not. */
function compare(
  invariant: string,
  what: string,
  found: Iterable<string>,
  wanted: Iterable<string>,
): string[] {
  const has = new Set(found)
  const wants = new Set(wanted)
  const surplus = [...has].filter((one) => !wants.has(one))
  const missing = [...wants].filter((one) => !has.has(one))
  return [
    ...(surplus.length > 0 ? [`${invariant}: ${what} too many: ${surplus.join(', ')}`] : []),
    ...(missing.length > 0 ? [`${invariant}: ${what} missing: ${missing.join(', ')}`] : []),
  ]
}

const addressesOf = (functions: Registered): string[] => [...functions.values()].map(({ address }) => address)
const lines = (text: string): string[] => text.split('\n').filter((line) => line.trim() !== '')
const canonical = (address: string): string => formatIpv6(ipv6Bytes(address))

async function registeredOnce(functions: Registered): Promise<string[]> {
  const addresses = addressesOf(functions)
  return compare(
    'I3',
    'addresses outside of the pool',
    addresses.filter((one) => !isInPrefix(one, functionsPrefix)),
    [],
  )
}

async function linkAddresses(server: Machine, functions: Registered): Promise<string[]> {
  const shown = JSON.parse(await server.sh('ip -j -6 address show dev wg0')) as {
    addr_info?: { local?: string; prefixlen?: number }[]
  }[]
  const found = shown
    .flatMap(({ addr_info = [] }) => addr_info)
    .flatMap(({ local, prefixlen }) => (local !== undefined && prefixlen === 128 ? [canonical(local)] : []))
    .filter((address) => isInPrefix(address, functionsPrefix))
  return compare('I4', 'addresses on wg0', found, addressesOf(functions))
}

async function listeners(server: Machine, functions: Registered): Promise<string[]> {
  const sockets = lines(await server.sh('ss -Hltn6e')).flatMap((line) => {
    const [, address = '', port = ''] = /\[([0-9a-f:]+)\]:(\d+)\s/.exec(line) ?? []
    if (address === '' || !isInPrefix(address, functionsPrefix)) return []
    return [`${canonical(address)} ${port} ${/fwmark:(\S+)/.exec(line)?.[1] ?? 'unmarked'}`]
  })
  const table = parseTableListing(await server.sh('nft -s -n list table inet faasd'))
  const addresses = addressesOf(functions)
  return [
    ...compare(
      'I5',
      'listeners',
      sockets,
      addresses.map((address) => `${address} 80 0xfaa5`),
    ),
    ...compare(
      'I5',
      'listeners in the packet filter',
      table.listeners,
      addresses.map((address) => `${address} . 80`),
    ),
  ]
}

async function names(server: Machine, functions: Registered): Promise<string[]> {
  const zone = await readFile(pathIn(server, 'faasd', 'dns', 'faas.db'), 'utf8')
  const records = lines(zone).flatMap((line) => {
    const [, name = '', address = ''] = /^(\S+)\s+IN\s+AAAA\s+(\S+)$/.exec(line) ?? []
    return name === '' ? [] : [`${name} ${canonical(address)}`]
  })
  const wanted = [...functions].map(([name, { address }]) => `${name} ${address}`)
  const served = await Promise.all(
    [...functions.keys()].map(async (name) => {
      const answer = await server.sh(
        `dig +short +time=2 +tries=1 ${name}.faas AAAA @fd00:faa5:0:100::1 || true`,
      )
      return `${name} ${lines(answer).join(' ')}`
    }),
  )
  return [
    ...(/\sIN\s+SOA\s/.test(zone) ? [] : ['I6: the zone has no SOA']),
    ...compare('I6', 'records in the zone file', records, ['ns fd00:faa5:0:100::1', ...wanted]),
    ...compare('I6', 'names that CoreDNS answers', served, wanted),
  ]
}

/** Whatever only exists while a request does. */
async function remains(server: Machine): Promise<string[]> {
  const looks = {
    containers: 'runc list -q; crun list -q',
    cgroups: "find /sys/fs/cgroup -mindepth 2 -type d -name 'faas-*' 2>/dev/null || true",
    bundles: 'ls -A /var/lib/faasd/bundles',
    'instance directories': 'ls -A /run/faasd/i',
    processes: `ps -eo uid,pid,args --no-headers | awk '$1 >= ${ID_BASE}'`,
    'directories of uploads': 'ls -A /var/lib/faasd/store/staging',
  }
  const found = await Promise.all(
    Object.entries(looks).map(async ([what, look]) => compare('I7', what, lines(await server.sh(look)), [])),
  )
  return found.flat()
}

async function mounts(server: Machine, functions: Registered): Promise<string[]> {
  const mounted = lines(await server.sh("awk '{ print $2 }' /proc/mounts")).filter((point) =>
    point.startsWith('/var/lib/faasd/'),
  )
  const roots = [...functions].map(
    ([name, { image }]) => `/var/lib/faasd/images/${name}/versions/${hexOf(image).slice(0, 12)}/rootfs`,
  )
  const links = lines(
    await server.sh('for link in /var/lib/faasd/images/*/rootfs; do readlink -f "$link" || true; done'),
  )
  return [
    ...compare('I7', 'mounts', mounted, roots),
    ...compare(
      'I7',
      'links images/NAME/rootfs',
      links.filter((link) => !link.includes('*')),
      roots,
    ),
    ...compare(
      'I7',
      'directories in images/',
      await readdir(pathIn(server, 'faasd', 'images')),
      functions.keys(),
    ),
  ]
}

async function store(server: Machine, functions: Registered): Promise<string[]> {
  const directory = pathIn(server, 'faasd', 'store')
  const records = await readdir(`${directory}/images`)
  const kept = [...functions.values()].flatMap(({ image, previous }) => [{ image }, ...previous])
  const images = new Set(kept.map(({ image }) => `${hexOf(image)}.json`))
  const layers = new Set<string>()
  for (const record of records) {
    const { layers: own } = JSON.parse(await readFile(`${directory}/images/${record}`, 'utf8')) as {
      layers: string[]
    }
    for (const layer of own) layers.add(hexOf(layer))
  }
  return [
    ...compare('I8', 'image records', records, images),
    ...compare('I8', 'layers', await readdir(`${directory}/layers`), layers),
  ]
}

async function peers(server: Machine): Promise<string[]> {
  const running = lines(await server.sh('wg show wg0 allowed-ips')).flatMap((line) => {
    const [key = '', address = ''] = line.split('\t')
    return isInPrefix(address.replace('/128', ''), peersPrefix)
      ? [`${key} ${canonical(address.replace('/128', ''))}`]
      : []
  })
  const files = await server.sh('cat /etc/wireguard/peers/*.conf 2>/dev/null || true')
  const keys = [...files.matchAll(/^PublicKey = (\S+)$/gm)].map(([, key]) => key)
  const addresses = [...files.matchAll(/^AllowedIPs = (\S+)\/128$/gm)].map(([, address = '']) =>
    canonical(address),
  )
  return compare(
    'I9',
    'peers of wg0',
    running,
    keys.map((key, index) => `${key} ${addresses[index]}`),
  )
}

/** Modes of what is secret, and that the server's key is nowhere else than in its own files. */
async function secrets(platform: Platform): Promise<string[]> {
  const { server } = platform
  const look = `
    stat -c '%n %a %U' /etc/wireguard/server_private.key /etc/wireguard/wg0.conf /run/faasd/i
    find /var/lib/faasd -maxdepth 1 -name '*.json*' -exec stat -c '%n %a %U' {} +
    stat -c '%n %a %U' /run/faasd/api.sock`
  const open = lines(await server.sh(look)).filter((line) => {
    const [path = '', mode = '', owner = ''] = line.split(' ')
    const wanted = path.endsWith('api.sock') ? ['660'] : path.endsWith('/i') ? ['700', '711'] : ['600']
    return owner !== 'root' || !wanted.includes(mode)
  })
  const key = (await server.sh('cat /etc/wireguard/server_private.key')).trim()
  const told = await server.sh(
    'grep -rlF -f /etc/wireguard/server_private.key /var/lib/faasd/*.json /var/lib/faasd/dns || true',
  )
  return [
    ...open.map((line) => `I10: the mode of ${line}`),
    ...(platform.log().includes(key) ? ['I10: the server’s private key is in the log'] : []),
    ...lines(told).map((path) => `I10: the server’s private key is in ${path}`),
  ]
}

const hexOf = (digest: string): string => digest.replace('sha256:', '')

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}
