"""A server that runs the Python in the query of each request and answers with what it puts into `answer`, as JSON. Of the
contract that the variable CONTRACT names. It prints the stop signal that it gets, and ends."""
import json
import os
import signal
import socket
import threading
import traceback
import urllib.parse

for name in os.environ.get("STOP_WITH", "").split():
    def stop(number, frame):
        os.write(1, f"stopped by signal {number}\n".encode())
        os._exit(0)
    signal.signal(int(name), stop)


def error_of(work, *arguments, **named):
    """The name of the errno that a call fails with, or 'ok'."""
    import errno
    try:
        work(*arguments, **named)
        return "ok"
    except OSError as failure:
        return errno.errorcode.get(failure.errno or 0, str(failure))


def serve(connection):
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            part = connection.recv(65536)
            if not part:
                return
            request += part
        query = request.split(b" ", 2)[1].partition(b"?")[2].decode()
        names = {"error_of": error_of, "os": os, "answer": None}
        try:
            exec(urllib.parse.unquote(query), names)
            body = json.dumps({"answer": names["answer"]})
        except BaseException:
            body = json.dumps({"failure": traceback.format_exc()})
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n"
        connection.sendall((head + body).encode())


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
