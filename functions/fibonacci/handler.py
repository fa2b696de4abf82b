"""Fibonacci: one connection, one process.

The platform binds a control socket at /control.sock. This program connects to it, receives one message
(payload SOCKET, one file descriptor: the client's TCP connection), answers the HTTP request and exits.
"""

import socket
import sys
from urllib.parse import parse_qs, urlsplit

CONTROL_SOCKET = "/control.sock"
MAX_STEPS = 1000
MAX_REQUEST_BYTES = 64 * 1024


def receive_connection():
    """The client's connection, passed over the control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.connect(CONTROL_SOCKET)
        payload, descriptors, _flags, _address = socket.recv_fds(control, 64, 1)
    if payload != b"SOCKET" or len(descriptors) != 1:
        raise RuntimeError(f"expected SOCKET and one descriptor, got {payload!r} and {len(descriptors)}")
    return socket.socket(fileno=descriptors[0])


def read_request_target(connection):
    """Reads the request's head and returns its target, such as /?n=10."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(4096)
        if not part or len(head) > MAX_REQUEST_BYTES:
            raise ValueError("the request's head is incomplete or too long")
        head += part
    _method, target, _version = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    return target


def fibonacci(steps):
    numbers = []
    a, b = 0, 1
    for _ in range(steps):
        numbers.append(a)
        a, b = b, a + b
    return numbers


def answer(connection, status, text):
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    connection.sendall(head.encode() + body)


def main():
    with receive_connection() as connection:
        connection.setblocking(True)
        try:
            steps = int(parse_qs(urlsplit(read_request_target(connection)).query).get("n", ["10"])[0])
            if not 0 <= steps <= MAX_STEPS:
                raise ValueError(f"n is from 0 to {MAX_STEPS}")
        except ValueError as error:
            print(f"bad request: {error}", file=sys.stderr)
            answer(connection, "400 Bad Request", f"{error}\n")
        else:
            numbers = ", ".join(map(str, fibonacci(steps)))
            answer(connection, "200 OK", f"Fibonacci sequence ({steps} steps):\n{numbers}\n")
        connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
