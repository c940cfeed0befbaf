"""`python -m bench.memory`: the memory that clients can make a gateway keep, each beside a control with the same requests."""

import contextlib
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.processes import Server, resident_bytes, running
from bench.servers import KEY, Place, gateway

MIB = 1024 * 1024
STEPS = 100
STEP_SECONDS = 0.05
GET = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"x":"' + b"z" * 65000 + b'"}\n\n'
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)


def chat(size: int, stream: bool) -> bytes:
    """Returns a chat request whose body has about ``size`` bytes."""
    body = json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "x" * size}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Upstream:
    """Answers each request with 100 MiB of events once its body has arrived."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            head, _, body = received.partition(b"\r\n\r\n")
            left = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) - len(body)
            while left > 0:
                left -= len(connection.recv(65536))
            connection.sendall(STREAM_HEAD)
            for _ in range(100 * MIB // len(EVENT)):
                connection.sendall(CHUNK)
            connection.sendall(b"0\r\n\r\n")


@contextlib.contextmanager
def connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Opens connections whose kernel takes as little as it may."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.setblocking(False)
            opened.append(client)
        yield opened


def load(server: Server, count: int, data: bytes, read_bytes: int) -> float:
    """Returns how many MiB the server grows at most while each client sends ``data`` and reads that much in each step."""
    before = most = resident_bytes(server.pid)
    with connections(server.command.port, count) as clients:
        unsent = dict.fromkeys(clients, data)
        for _ in range(STEPS):
            for client in clients:
                with contextlib.suppress(BlockingIOError):
                    while unsent[client]:
                        unsent[client] = unsent[client][client.send(unsent[client][:MIB]) :]
                with contextlib.suppress(BlockingIOError):
                    client.recv(read_bytes) if read_bytes else None
            most = max(most, resident_bytes(server.pid))
            time.sleep(STEP_SECONDS)
    return (most - before) / MIB


ROWS: dict[str, Callable[[Server], float]] = {
    "control: one request for /openapi.json on each of 40 connections, read": lambda it: load(it, 40, GET, MIB),
    "4,000 requests for /openapi.json on one connection, nothing read": lambda it: load(it, 1, GET * 4000, 0),
    "30 connections with 300 of them each": lambda it: load(it, 30, GET * 300, 0),
    "control: 30 streams, read as fast as they come": lambda it: load(it, 30, chat(10, True), MIB),
    "30 streams of 100 MiB, a byte read in 50 ms": lambda it: load(it, 30, chat(10, True), 1),
    "control: one body of 20 MiB": lambda it: load(it, 1, chat(20 * MIB, True), MIB),
    "15 bodies of 20 MiB at once": lambda it: load(it, 15, chat(20 * MIB, True), MIB),
}


def main() -> int:
    """Prints a table: for each load a gateway of its own, and by how much it grew at the peak."""
    upstream = Upstream()
    print("| load | MiB more at the peak |\n|---|---|")
    for name, measure in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder), Path(sys.executable), 0, 0)
            with running(gateway(place, upstream.url, "gateway"), 0) as server:
                print(f"| {name} | {measure(server):.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
