"""A small HTTP server that binds its port in the way `MODE` names, and answers with what it sees, as JSON."""
import os
import signal
import socket
import sys
import threading
import time

port = int(os.environ["PORT"])
mode = os.environ["MODE"]
extra = {}


def bound(family=socket.AF_INET6, address="::", number=port, only6=False, reuse_port=False):
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only6)
    if reuse_port:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((address, number))
    return made


def listener(*arguments, backlog=5, **options):
    made = bound(*arguments, **options)
    made.listen(backlog)
    return made


def answer(connection, peer):
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            part = connection.recv(4096)
            if not part:
                return
            request += part
        seen = {"mode": mode, "pid": os.getpid(), "peer": peer[0], "uid": os.getuid()}
        seen.update({name: look() for name, look in extra.items()})
        # Of words and numbers; the small Python has no json.
        body = repr(seen).replace("'", '"').encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)


def serve(server):
    while True:
        try:
            connection, peer = server.accept()
        except OSError as error:
            if server.fileno() < 0:
                return
            print("accept:", error, flush=True)
            time.sleep(0.1)
            continue
        threading.Thread(target=answer, args=(connection, peer)).start()


def workers(count, make):
    """`count` processes that accept; each handles one connection at a time so that all of them come to it."""
    for _ in range(count):
        if os.fork() == 0:
            serve(make())
    signal.pause()


def datagram_to_myself():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"inside", ("127.0.0.1", port))
    return udp.recv(100).decode()


def call_second_port():
    try:
        with socket.create_connection(("127.0.0.1", 9999), timeout=2) as caller:
            return caller.recv(100).decode()
    except OSError as error:
        return type(error).__name__


def call_unix_sockets():
    words = []
    for path in ("/tmp/control", "/run/control"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(path)
            words.append(caller.recv(100).decode() + " " + str(os.stat(path).st_uid))
    return ", ".join(words + [str(os.path.exists("/tmp/relative"))])


def greet(server):
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"second")


if mode == "ipv4":
    serve(listener(socket.AF_INET, "0.0.0.0"))
elif mode == "ipv6":
    serve(listener(only6=True))
elif mode == "dual":
    serve(listener())
elif mode in ("4-then-6", "4-listening-then-6", "6-then-4"):
    # As nginx, Redis and asyncio do: all are bound before one listens, or each listens at once.
    families = [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
    if mode == "6-then-4":
        families.reverse()
    made = []
    for family, address in families:
        one = bound(family, address, only6=True)
        if mode == "4-listening-then-6":
            one.listen(5)
        made.append(one)
    for one in made:
        one.listen(5)
        threading.Thread(target=serve, args=(one,)).start()
elif mode == "loopback":
    serve(listener(socket.AF_INET, "127.0.0.1"))
elif mode == "other-first":
    for number in (0, 9090):
        listener(socket.AF_INET, "127.0.0.1", number).close()
    serve(listener())
elif mode == "fork":
    shared = listener()
    workers(3, lambda: shared)
elif mode == "reuse-port":
    workers(3, lambda: listener(reuse_port=True))
elif mode == "twice":
    first, second = listener(), listener()
    threading.Thread(target=serve, args=(first,)).start()
    serve(second)
elif mode == "backlog-1":
    serve(listener(backlog=1))
elif mode == "exec":
    if len(sys.argv) > 1:
        serve(socket.socket(fileno=int(sys.argv[1])))
    handed = listener()
    handed.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, __file__, str(handed.fileno())])
elif mode == "rebind":
    generation = 1
    current = listener()

    def reload(*_):
        global current, generation
        current.close()
        current = listener()
        generation += 1

    signal.signal(signal.SIGHUP, reload)
    extra["generation"] = lambda: generation
    while True:
        # A closed listener wakes nobody who waits in accept; a limit does.
        current.settimeout(0.2)
        try:
            connection, peer = current.accept()
        except OSError:
            continue
        connection.settimeout(None)
        answer(connection, peer)
elif mode == "other-port":
    serve(listener(number=3000))
elif mode == "udp":
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", port))
    udp.settimeout(2)
    extra["datagram"] = datagram_to_myself
    serve(listener())
elif mode == "unix":
    tcp = listener()
    for path in ("/tmp/control", "/run/control"):
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.bind(path)
        local.listen(5)
        threading.Thread(target=greet, args=(local,)).start()
    os.chdir("/tmp")
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    local.bind("relative")
    extra["unix"] = call_unix_sockets
    serve(tcp)
elif mode == "second-port":
    threading.Thread(target=greet, args=(listener(number=9999),)).start()
    extra["second"] = call_second_port
    serve(listener())
else:
    sys.exit(f"unknown mode {mode}")
