"""Servers that do what they should not; `MODE` says what."""
import os
import socket
import sys
import time

port = int(os.environ["PORT"])
mode = os.environ["MODE"]


def bound():
    made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::", port))
    return made


def listener():
    made = bound()
    made.listen(5)
    return made


def sleep():
    while True:
        time.sleep(3600)


print("about to", mode, flush=True)
if mode == "never-bind":
    sleep()
elif mode == "crash":
    print("cannot read /etc/app.conf", file=sys.stderr, flush=True)
    sys.exit(3)
elif mode == "bind-only":
    kept = bound()
    sleep()
elif mode == "never-accept":
    kept = listener()
    sleep()
elif mode == "close":
    listener().close()
    sleep()
elif mode == "shutdown":
    kept = listener()
    kept.shutdown(socket.SHUT_RDWR)
    sleep()
elif mode == "shutdown-later":
    # Serves one caller. The next ones meet a listener that is none any more.
    kept = listener()
    connection, _ = kept.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nserved")
    connection.close()
    kept.shutdown(socket.SHUT_RDWR)
    sleep()
elif mode == "daemonize":
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    time.sleep(0.2)
    kept = listener()
    sleep()
elif mode == "crash-loop":
    # The proof of a deploy has another socket; from FAAS_ADDRESS on it is the function's own.
    kept = bound()
    if kept.getsockname()[0] == os.environ["FAAS_ADDRESS"]:
        print("no database", file=sys.stderr, flush=True)
        sys.exit(7)
    kept.listen(5)
    sleep()
elif mode == "crash-on-request":
    kept = listener()
    connection, _ = kept.accept()
    sys.exit(9)
elif mode == "hold":
    kept, connections = listener(), []
    while True:
        connections.append(kept.accept())
else:
    sys.exit(f"unknown mode {mode}")
