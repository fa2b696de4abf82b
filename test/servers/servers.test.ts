/** Real, unmodified servers through the whole platform: the `listen` contract's conformance suite (conformance.ts). */
import { type ServerCase, serverSuite } from './conformance.ts'
import * as images from './images.ts'
import { deviceAddress } from './place.ts'

/** Builds an image at its first use: its version is told by a variable. */
function once(build: () => Promise<string>): () => Promise<string> {
  let built: Promise<string> | undefined
  return () => (built ??= build())
}

/** `NAME VERSION CALLER`: each of our few lines of source answers so. */
const plain = (name: string) => (version: string) => `${name} ${version} ${deviceAddress}\n`

const cases: readonly ServerCase[] = [
  {
    title: 'Python http.server',
    name: 'python',
    image: images.pythonHttpServer,
    expected: (version) => `http.server ${version}\n`,
  },
  {
    title: 'asyncio, which binds 0.0.0.0 and ::',
    name: 'asyncio',
    image: once(images.asyncioServer),
    expected: plain('asyncio'),
  },
  { title: 'Node http', name: 'node', image: once(images.nodeServer), expected: plain('node') },
  { title: 'Go net/http', name: 'go', needs: ['go'], image: once(images.goServer), expected: plain('go') },
  {
    title: 'a C program with plain epoll',
    name: 'epoll',
    needs: ['cc'],
    image: once(images.epollServer),
    expected: plain('epoll'),
  },
  {
    title: 'a Java server',
    name: 'java',
    needs: ['jlink', 'javac'],
    image: once(images.javaServer),
    expected: (version) => `java ${version} fd00:faa5:0:100:0:0:0:a\n`,
  },
  {
    title: 'nginx, which starts as root and serves as www-data',
    name: 'nginx',
    image: (version) => images.nginxServer({ version }),
    expected: plain('nginx'),
  },
  {
    title: 'nginx that listens on an IPv4 socket only, by a relay',
    name: 'nginx-ipv4',
    image: (version) => images.nginxServer({ version, listen: ['80'] }),
    expected: (version) => `nginx ${version} 127.0.0.1\n`,
    path: 'relay',
  },
  {
    title: 'Redis, whose entrypoint changes to another user, on its own port',
    name: 'redis',
    image: once(images.redisServer),
    options: ['--port', '6379:6379'],
    ask: (place, name) => place.talk(name, 6379, 'PING\\r\\nCLIENT INFO\\r\\n', 3),
    expected: () => /^\+PONG\r\n\$\d+\r\n.* addr=\[fd00:faa5:0:100::a\]:\d+ .* user=default /,
  },
]

serverSuite(cases)
