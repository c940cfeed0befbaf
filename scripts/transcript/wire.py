"""Raw HTTP/1.1 over real sockets: requests as bytes, answers as the bytes that came."""

import json
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

TIMEOUT_SECONDS = 15.0
_BLOCK = 65536
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    """The bytes of an answer, interim answers included, and how it ended: "complete", "closed early" or "reset"."""

    raw: bytes
    ending: str

    @property
    def status(self) -> int:
        """The status of the last head; 0 where nothing came."""
        found = re.findall(rb"^HTTP/1\.[01] (\d{3})", self.raw, re.MULTILINE)
        return int(found[-1]) if found else 0

    def json(self) -> Any:
        """The body, decoded. Raises ValueError for a body that is not JSON."""
        return json.loads(self.raw.rpartition(b"\r\n\r\n")[2])


def request(
    method: str,
    target: str,
    headers: Sequence[str] = (),
    body: bytes | str | dict[str, Any] | None = None,
    *,
    key: str | None = None,
) -> bytes:
    """A request of HTTP/1.1. A dict is sent as JSON. ``headers`` replace the ``Host`` and ``Content-Type`` of every request."""
    named = {header.partition(":")[0].lower() for header in headers}
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in named:
        lines.append("Host: localhost")
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    lines += headers
    data = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    if data is not None:
        if "content-type" not in named:
            lines.append("Content-Type: application/json")
        if not named & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + (data or b"")


def chunked(*pieces: bytes) -> bytes:
    """A whole body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


class Connection:
    """One connection to the gateway. ``on_data`` is told all that has been received, after each piece of it."""

    def __init__(self, port: int, on_data: Callable[[bytes], None] | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self._on_data = on_data
        self._received = b""
        self._ending = ""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send as much as the gateway takes: it may close the connection before it has read all."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self._ending = "reset"

    def read_until(self, mark: bytes) -> None:
        """Receive until ``mark`` has come. Raises RuntimeError where the connection ends before."""
        while mark not in self._received:
            if not self._receive():
                raise RuntimeError(f"{mark!r} did not come; received: {self._received!r}")

    def read_reply(self, method: str) -> Reply:
        """The next whole answer, or what there was of it when the connection ended."""
        while (end := _end_of_reply(self._received, method)) is None:
            if not self._receive():
                raw, self._received = self._received, b""
                is_whole = raw and _ends_with_connection(raw) and self._ending == "closed"
                return Reply(raw, "complete, closed" if is_whole else self._ending + " early")
        raw, self._received = self._received[:end], self._received[end:]
        return Reply(raw, "complete")

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(_BLOCK)
        except ConnectionResetError:
            self._ending = "reset"
            return False
        if not data:
            self._ending = self._ending or "closed"
            return False
        self._received += data
        if self._on_data is not None:
            self._on_data(self._received)
        return True


def _end_of_reply(data: bytes, method: str) -> int | None:
    """The length of the first whole answer in ``data``, with the interim answers before it; None where it is not whole yet."""
    start = 0
    while (at := data.find(b"\r\n\r\n", start)) >= 0:
        head, body_at = data[start : at + 2], at + 4
        status = head.split(b" ", 2)[1]
        if status.startswith(b"1"):
            start = body_at
            continue
        if method == "HEAD" or status in (b"204", b"304"):
            return body_at
        if _CHUNKED.search(head):
            return _end_of_chunks(data, body_at)
        length = _LENGTH.search(head)
        if length is None:
            return None
        end = body_at + int(length[1])
        return end if len(data) >= end else None
    return None


def _end_of_chunks(data: bytes, at: int) -> int | None:
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end].partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if size == 0:
            return at if len(data) >= at else None
    return None


def _ends_with_connection(raw: bytes) -> bool:
    head = raw.partition(b"\r\n\r\n")[0]
    return b"\r\n\r\n" in raw and not _CHUNKED.search(head) and not _LENGTH.search(head)
