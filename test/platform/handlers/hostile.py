"""A function that tries to get out with what it was given (docs: hardening, "the egress trap").

The request's path names one attempt and its arguments; what became of it is printed as `attempt PATH: OUTCOME`, with
OUTCOME `connected`, `listening`, `done` or the name of the errno. MODE=never-receive connects and never takes its connection.
"""

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import time

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_SENDTO = {"x86_64": 44, "aarch64": 206}[os.uname().machine]
MSG_FASTOPEN = 0x20000000
SOL_IPV6, IPV6_V6ONLY = 41, 26


def name_of(number):
    return errno.errorcode.get(number, f"errno {number}")


def result(returned, good="done"):
    return good if returned >= 0 else name_of(ctypes.get_errno())


def sockaddr(address, port):
    if ":" in address:
        return struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(int(port)), 0, socket.inet_pton(socket.AF_INET6, address), 0)
    return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(int(port)), socket.inet_pton(socket.AF_INET, address))


def connect(fd, address, port):
    name = sockaddr(address, port)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
    if LIBC.connect(fd, name, len(name)) == 0:
        return "connected"
    number = ctypes.get_errno()
    return outcome(fd) if number == errno.EINPROGRESS else name_of(number)


def outcome(fd):
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    if not poller.poll(3000):
        return "ETIMEDOUT"
    value, length = ctypes.c_int(0), ctypes.c_uint(4)
    LIBC.getsockopt(fd, socket.SOL_SOCKET, socket.SO_ERROR, ctypes.byref(value), ctypes.byref(length))
    return "connected" if value.value == 0 else name_of(value.value)


def disconnect(fd):
    """connect(AF_UNSPEC): the socket becomes one that can be connected anew."""
    return LIBC.connect(fd, bytes(28), 28)


def set_int(fd, level, option, value=1):
    return LIBC.setsockopt(fd, int(level), int(option), struct.pack("i", int(value)), 4)


# Attempts: each takes the passed connection and the control socket.


def direct(fd, _control, address, port):
    return connect(fd, address, port)


def reconnect(fd, _control, address, port):
    disconnect(fd)
    return connect(fd, address, port)


def later(fd, _control, address, port):
    time.sleep(4)
    return reconnect(fd, _control, address, port)


def mapped(fd, _control, address, port):
    disconnect(fd)
    set_int(fd, SOL_IPV6, IPV6_V6ONLY, 0)
    return connect(fd, f"::ffff:{address}", port)


def rebind(fd, _control, address, port):
    disconnect(fd)
    set_int(fd, SOL_IPV6, IPV6_V6ONLY, 0)
    LIBC.bind(fd, sockaddr("::", 0), 28)
    return connect(fd, address, port)


def bind(fd, _control, address, port):
    disconnect(fd)
    bound = result(LIBC.bind(fd, sockaddr(address, port), 28))
    return bound if bound != "done" else listen(fd, _control)


def listen(fd, _control):
    disconnect(fd)
    listening = result(LIBC.listen(fd, 8), "listening")
    if listening == "listening":
        time.sleep(5)
    return listening


def accept(fd, _control):
    disconnect(fd)
    return result(LIBC.accept(fd, None, None))


def fastopen(fd, _control, address, port):
    disconnect(fd)
    sent = LIBC.sendto(fd, b"hello", 5, MSG_FASTOPEN, sockaddr(address, port), 28)
    return outcome(fd) if sent >= 0 or ctypes.get_errno() == errno.EINPROGRESS else name_of(ctypes.get_errno())


def fastopen_high(fd, _control, address, port):
    """The same with the upper half of the flags' register set, which the kernel does not read."""
    disconnect(fd)
    flags = ctypes.c_ulong(1 << 40 | MSG_FASTOPEN)
    sent = LIBC.syscall(SYS_SENDTO, fd, b"hello", ctypes.c_ulong(5), flags, sockaddr(address, port), 28)
    return outcome(fd) if sent >= 0 or ctypes.get_errno() == errno.EINPROGRESS else name_of(ctypes.get_errno())


def fastopen_connect(fd, _control, address, port):
    disconnect(fd)
    set_int(fd, socket.IPPROTO_TCP, 30)  # TCP_FASTOPEN_CONNECT
    connected = connect(fd, address, port)
    if connected != "connected":
        return connected
    LIBC.send(fd, b"hello", 5, socket.MSG_NOSIGNAL)
    return outcome(fd)


def ioctl(fd, _control, request):
    buffer = ctypes.create_string_buffer(struct.pack("iP", 0, 0) + bytes(4096))
    return result(LIBC.ioctl(fd, ctypes.c_ulong(int(request, 16)), buffer))


def option(fd, _control, level, number, value):
    data = value.encode() if not value.isdigit() else struct.pack("i", int(value))
    return result(LIBC.setsockopt(fd, int(level), int(number), data, len(data)))


def fresh(_fd, _control, address, port):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as own:
        return connect(own.fileno(), address, port)


def family(_fd, _control, number):
    made = LIBC.socket(int(number), socket.SOCK_RAW, 0)
    return result(made)


def second(_fd, _control):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as again:
        return name_of(again.connect_ex("/control.sock"))


def send_back(fd, control):
    """The connection goes back to where it came from, and this process goes."""
    os.write(fd, b"HTTP/1.1 200 OK\r\n\r\nbye")
    try:
        socket.send_fds(control, [b"x"], [fd])
        return "done"
    except OSError as error:
        return name_of(error.errno)


def send_many(fd, control):
    for _ in range(1000):
        try:
            socket.send_fds(control, [b"x"], [fd] * 253)
        except OSError as error:
            return name_of(error.errno)
    return "done"


def pour(_fd, control):
    block = bytes(1 << 20)
    for _ in range(1024):
        try:
            control.sendall(block)
        except OSError as error:
            return name_of(error.errno)
    return "done"


def credentials(_fd, control):
    # SCM_CREDENTIALS with our own pid and somebody else's ids: our own would be no forgery, and pass.
    forged = [(socket.SOL_SOCKET, 2, struct.pack("iii", os.getpid(), 1, 1))]
    try:
        control.sendmsg([b"x"], forged)
        return "done"
    except OSError as error:
        return name_of(error.errno)


ATTEMPTS = {
    f.__name__.replace("_", "-"): f
    for f in (
        direct, reconnect, later, mapped, rebind, bind, listen, accept, fastopen, fastopen_high, fastopen_connect, ioctl, option,
        fresh, family, second, send_back, send_many, pour, credentials,
    )
}


def main():
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.connect("/control.sock")
    if os.environ.get("MODE") == "never-receive":
        time.sleep(3600)
    payload, descriptors, _flags, _address = socket.recv_fds(control, 64, 1)
    if not descriptors:
        return
    fd = descriptors[0]
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    head = b""
    while b"\r\n\r\n" not in head:
        part = os.read(fd, 4096)
        if not part:
            return
        head += part
    path = head.split(b" ", 2)[1].decode()
    name, *arguments = path.strip("/").split("/")
    if name == "answer":
        os.write(fd, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nanswer")
        return
    print(f"attempt {path}: {ATTEMPTS[name](fd, control, *arguments)}", flush=True)


if __name__ == "__main__":
    main()
