/** Makes WireGuard shake hands with a peer: any packet to its address does. */
import { createSocket } from 'node:dgram'
import type { Ipv6 } from '../values/ipv6.ts'

/** Discard (RFC 863); nobody needs to listen. */
const discardPort = 9

/** Sends one datagram. That it cannot be sent is no failure: the peer comes by itself, later. */
export function nudgeByUdp(address: Ipv6): void {
  const socket = createSocket('udp6')
  let isOpen = true
  const close = (): void => {
    if (isOpen) socket.close()
    isOpen = false
  }
  socket.on('error', close)
  socket.send('', discardPort, address, close)
}
