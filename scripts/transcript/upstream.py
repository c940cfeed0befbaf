"""The server behind the gateway, on raw sockets: it answers what a case tells it to, and keeps what it was sent."""

import json
import re
import socket
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
STEP_SECONDS = 10.0
DONE = "data: [DONE]\n\n"


class Script(NamedTuple):
    """What is sent for one request. Each piece behind the first waits until the client has got one event more.

    The connection ends when the client has got ``waits_for`` events; with ``is_reset`` by a reset instead of a proper end.
    """

    pieces: Sequence[bytes]
    waits_for: int = 0
    is_reset: bool = False


def answer(status: str, headers: Sequence[str], body: bytes) -> Script:
    """A whole answer with its length."""
    return Script([_head(status, [*headers, f"Content-Length: {len(body)}"]) + body])


def json_answer(content: Any, status: str = "200 OK", headers: Sequence[str] = ()) -> Script:
    """``content`` as JSON, spelt in the compact way."""
    body = json.dumps(content, separators=(",", ":")).encode()
    return answer(status, ["Content-Type: application/json", *headers], body)


def events(*events: str, headers: Sequence[str] = (), is_whole: bool = True, is_reset: bool = False) -> Script:
    """An event stream in chunks, one chunk an event; the head comes with the first. Not whole: the last chunk is missing."""
    head = _head("200 OK", ["Content-Type: text/event-stream", "Transfer-Encoding: chunked", *headers])
    data = [b"%x\r\n%s\r\n" % (len(event.encode()), event.encode()) for event in events]
    pieces = [head + b"".join(data[:1]), *data[1:]]
    if is_whole:
        pieces[-1] += b"0\r\n\r\n"
    return Script(pieces, 0 if is_whole else len(events), is_reset)


def chunk(text: str | None, finish: str | None = None, model: str = "real-model", usage: Any = None) -> str:
    """An event of a chat stream, whose delta holds ``text``; without a text it has no choice, as the one with the usage."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
    if text is None:
        data |= {"choices": [], "usage": usage}
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"


def _head(status: str, headers: Sequence[str]) -> bytes:
    # Each request gets a connection of its own: whether a kept one is used again would depend on the clock.
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode()


class Upstream:
    """Listens on a free port of loopback and answers each request with ``script``. Close it when done."""

    def __init__(self) -> None:
        self.script = Script([b""])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._received: list[bytes] = []
        self._seen = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Upstream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closed alone, it would go on as long as a thread waits in accept()
        self._thread.join()
        self._listener.close()

    def prepare(self, script: Script) -> None:
        """What the next requests get."""
        with self._changed:
            self.script, self._seen = script, 0

    def client_has(self, received: bytes) -> None:
        """Tells how far the client is: the next piece is sent when it has one event more."""
        with self._changed:
            self._seen = max(self._seen, len(re.findall(rb"data: ?\S", received)))
            self._changed.notify_all()

    def release(self) -> None:
        """Send all the pieces that are left."""
        with self._changed:
            self._seen = 1_000_000
            self._changed.notify_all()

    def take_received(self) -> list[bytes]:
        """The requests that came since the last time."""
        with self._changed:
            received, self._received = self._received, []
            return received

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(STEP_SECONDS)
        with connection:
            try:
                data = _read_request(connection)
                with self._changed:
                    self._received.append(data)
                    script = self.script
                self._send(connection, script)
            except OSError:
                return  # the gateway has gone, which is what some cases are about

    def _send(self, connection: socket.socket, script: Script) -> None:
        for number, piece in enumerate(script.pieces):
            self._wait_for_events(number)
            connection.sendall(piece)
        self._wait_for_events(script.waits_for)
        if script.is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def _wait_for_events(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._seen >= count, STEP_SECONDS)


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    if _CHUNKED.search(head):
        while not body.endswith(b"0\r\n\r\n"):
            body += _some(connection)
    elif length := _LENGTH.search(head):
        while len(body) < int(length[1]):
            body += _some(connection)
    return head + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError
    return data
