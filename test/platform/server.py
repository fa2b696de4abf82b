"""A small HTTP server for tests, of the contract that the variable CONTRACT names. Every answer but the health check's
is the variable ANSWER. HEALTH is what /healthz answers, WARM_UP how many times it answers 503 before. With MUTE it
accepts and says nothing."""
import os
import socket
import threading
import time

answer = os.environ.get("ANSWER", "none").encode()
warm_up = int(os.environ.get("WARM_UP", "0"))


def serve(connection):
    global warm_up
    with connection:
        if "MUTE" in os.environ:
            time.sleep(60)
        request = b""
        while b"\r\n\r\n" not in request:
            part = connection.recv(4096)
            if not part:
                return
            request += part
        method, path, _ = request.split(b"\r\n", 1)[0].split(b" ")
        status, body = b"200 OK", answer
        if path.startswith(b"/healthz"):
            print("asked for", path.decode(), flush=True)
            status, body = os.environ.get("HEALTH", "200").encode() + b" said", b""
            if warm_up > 0:
                warm_up -= 1
                status = b"503 warming up"
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body))
        connection.sendall(head + body)


if os.environ.get("CONTRACT") == "fd":
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.connect("/control.sock")
        _, descriptors, _, _ = socket.recv_fds(control, 64, 1)
    serve(socket.socket(fileno=descriptors[0]))
else:
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.bind(("::", int(os.environ["PORT"])))
    listener.listen(64)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
