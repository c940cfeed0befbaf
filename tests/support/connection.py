"""A client's end of one request without a socket: what is sent to it can be looked at."""

from collections.abc import Mapping, Sequence

from multidict import CIMultiDict

from gateway.http.context import RequestContext
from gateway.http.request import HTTP_1_1, Request


class MemoryConnection:
    """A ``http.request.Connection``. The body of the request comes in ``chunks``, one at a time."""

    def __init__(self, *chunks: bytes, content_length: int | None = None) -> None:
        self._chunks = list(chunks)
        self.content_length = content_length
        self.peer_address: str | None = "127.0.0.1"
        self.own_address: str | None = "127.0.0.1"
        self.file_descriptor: int | None = None
        self.is_closing = False
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.sent: list[bytes] = []
        self.end: str | None = None
        """``sent`` (whole), ``finished``, ``broken off`` or ``aborted``."""
        self.closes = False
        self.is_told_to_continue = False

    @property
    def has_body(self) -> bool:
        return bool(self._chunks)

    @property
    def body(self) -> bytes:
        return b"".join(self.sent)

    def buffered_body(self, limit: int) -> bytes | None:
        return None

    async def read_chunk(self) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""

    def send_continue(self) -> None:
        self.is_told_to_continue = True

    async def send(self, status: int, headers: Mapping[str, str], body: bytes, *, closes: bool) -> None:
        self.status, self.headers, self.sent, self.closes, self.end = status, dict(headers), [body], closes, "sent"

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status, self.headers = status, dict(headers)

    async def write(self, chunk: bytes) -> None:
        if self.is_closing:
            raise ConnectionResetError("the client has gone")
        self.sent.append(chunk)

    async def finish(self) -> None:
        self.end = "finished"

    def break_off(self, last: bytes = b"") -> None:
        if last and not self.is_closing:
            self.sent.append(last)
        self.end = "broken off"

    def abort(self) -> None:
        self.end = "aborted"


def request(
    method: str = "GET",
    raw_path: str = "/v1/models",
    headers: Sequence[tuple[str, str]] = (),
    connection: MemoryConnection | None = None,
) -> Request:
    return Request(method, raw_path, CIMultiDict(headers), HTTP_1_1, connection or MemoryConnection())


def context(
    method: str = "GET",
    raw_path: str = "/v1/models",
    headers: Sequence[tuple[str, str]] = (),
    connection: MemoryConnection | None = None,
) -> RequestContext:
    return RequestContext(request(method, raw_path, headers, connection))
