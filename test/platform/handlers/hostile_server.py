"""A server of the `listen` contract that abuses what it is given, by MODE. In a trial it behaves, so that it is deployed."""
import os
import socket
import sys
import threading

mode = os.environ.get("MODE", "")
port = int(os.environ["PORT"])


def bound(kind=0):
    one = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | kind)
    one.bind(("::", port))
    return one


server = bound()
trial = server.getsockname()[0] == "::1"
if not trial and mode == "exits":
    sys.exit(3)
if not trial and mode == "shuts-down":
    bound(socket.SOCK_NONBLOCK).shutdown(socket.SHUT_RD)
    sys.exit(3)
if not trial and mode == "keeps-address":
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
if mode == "unix":
    long = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.makedirs("/tmp/of/the/server", exist_ok=True)
    long.bind("/tmp/of/the/server/control.sock")
    long.listen(1)
    made = os.stat("/tmp/of/the/server/control.sock")
    print("UNIX", made.st_uid, oct(made.st_mode & 0o777), flush=True)
server.listen(64)


def answer(connection):
    with connection:
        request = connection.recv(4096)
        body = os.environ.get("ANSWER", "x").encode()
        if b"/deaf" in request:
            server.shutdown(socket.SHUT_RD)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))


def bind_for_ever():
    seen = set()
    while True:
        one = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            one.bind(("::", port))
            held = os.readlink("/proc/self/fd/%d" % one.fileno())
            what = "socket" if held.startswith("socket:") else held
            what += " at " + one.getsockname()[0]
        except OSError as error:
            what = str(error)
        if what not in seen:
            seen.add(what)
            print("HELD", what, flush=True)
        one.close()


if not trial and mode == "binds":
    threading.Thread(target=bind_for_ever, daemon=True).start()
while True:
    try:
        connection = server.accept()[0]
    except OSError:
        threading.Event().wait(0.2)
        continue
    threading.Thread(target=answer, args=(connection,), daemon=True).start()
