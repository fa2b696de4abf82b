"""The handler of most tests: one connection, one process; the request's path says what to do.

CONNECT_UNTIL (seconds since 1970) makes an image that works when it is deployed and never connects from then on.
"""

import os
import socket
import sys
import time


def receive_connection():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.connect("/control.sock")
        payload, descriptors, _flags, _address = socket.recv_fds(control, 64, 1)
    if not descriptors:
        sys.exit(0)  # only looked at, at deploy
    if payload != b"SOCKET" or len(descriptors) != 1:
        raise RuntimeError(f"got {payload!r} and {len(descriptors)} descriptors")
    return socket.socket(fileno=descriptors[0])


def processes():
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def version():
    return os.environ.get("VERSION", "none")


def peer():
    return CONNECTION.getpeername()[0]


def fresh():
    """What an earlier request would have left, then leaves it itself."""
    found = f"files {os.listdir('/tmp')} processes {processes()} pid {os.getpid()}"
    open("/tmp/left", "w").close()
    if os.fork() == 0:
        time.sleep(60)
    return found


def sleep(seconds):
    time.sleep(float(seconds))
    return "slept"


def silent():
    time.sleep(3600)


def crash():
    print("about to crash", file=sys.stderr, flush=True)
    os._exit(3)


def words(word):
    print(f"to stdout {word}", flush=True)
    print(f"to stderr {word}", file=sys.stderr, flush=True)
    return "printed"


def flood(megabytes):
    line = b"x" * 99 + b"\n"
    block = line * 10000
    for _ in range(int(megabytes)):
        write_all(1, block)
    return "flooded"


def write_all(descriptor, data):
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]


def memory():
    kept = []
    while True:
        kept.append(bytearray(b"x") * (4 << 20))


def fork():
    count = 0
    try:
        while count < 1000:
            if os.fork() == 0:
                time.sleep(60)
            count += 1
    except OSError as error:
        return f"forked {count}, then errno {error.errno}"
    return f"forked {count}"


def fill():
    """Writes into /tmp until it is full, within its size and the memory limit."""
    written = 0
    try:
        with open("/tmp/big", "wb", buffering=0) as file:
            while written < 1 << 30:
                written += file.write(b"x" * (1 << 20))
    except OSError as error:
        return f"wrote {written >> 20} MiB, then errno {error.errno}"
    return f"wrote {written >> 20} MiB"


def process():
    with open("/proc/self/status") as file:
        kept = [line.strip() for line in file if line.startswith(("Uid", "Cap", "NoNewPrivs", "Seccomp:"))]
    return "\n".join([*kept, *sorted(f"{key}={value}" for key, value in os.environ.items()), f"cwd={os.getcwd()}"])


def leak():
    """A child of another session keeps the connection."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(3600)
    os._exit(0)


ACTIONS = {f.__name__: f for f in (version, peer, fresh, sleep, silent, crash, words, flood, memory, fork, fill, process, leak)}


def main():
    global CONNECTION
    if time.time() >= float(os.environ.get("CONNECT_UNTIL", "inf")):
        time.sleep(3600)
    CONNECTION = receive_connection()
    CONNECTION.setblocking(True)
    head = b""
    while b"\r\n\r\n" not in head:
        part = CONNECTION.recv(4096)
        if not part:
            return
        head += part
    name, *arguments = head.split(b" ", 2)[1].decode().strip("/").split("/")
    body = str(ACTIONS[name or "version"](*arguments)).encode()
    CONNECTION.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    CONNECTION.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
