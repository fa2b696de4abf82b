"""asyncio.start_server without an address: it binds 0.0.0.0 and :: both, and accepts on both."""
import asyncio
import os


async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    peer = writer.get_extra_info("peername")[0]
    body = f"asyncio {os.environ.get('VERSION', '1')} {peer}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(answer, None, int(os.environ["PORT"]))
    print("sockets:", len(server.sockets), flush=True)
    await server.serve_forever()


asyncio.run(main())
