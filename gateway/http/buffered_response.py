"""A whole answer, written as one block of bytes.

aiohttp's own response builds a header object, fills it in several passes and writes it with the body in a second step; where
the body is there already, all that is a seventh of a request's time. What it guards against is guarded against here.
"""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time

_REASONS = MappingProxyType({status.value: status.phrase for status in HTTPStatus})
_WITHOUT_BODY = frozenset({204, 304})


class WholeResponse(web.StreamResponse):
    """``headers`` are everything but length, date and connection."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status=status)
        self._lines = headers
        self._content = body
        self._stays_open = True

    @property
    def keep_alive(self) -> bool:
        return self._stays_open

    def force_close(self) -> None:
        self._stays_open = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._stays_open = self._stays_open and request.keep_alive
        has_body = request.method != "HEAD" and self.status not in _WITHOUT_BODY
        transport.write(self._head(request) + self._content if has_body else self._head(request))
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """It all went out at once."""

    def _head(self, request: web.BaseRequest) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}"]
        lines += [f"{name}: {value}" for name, value in self._lines.items()]
        if self.status not in _WITHOUT_BODY:
            lines.append(f"content-length: {len(self._content)}")
        lines.append(f"date: {rfc822_formatted_time()}")
        if not self._stays_open:
            lines.append("connection: close")
        elif request.version < (1, 1):
            lines.append("connection: keep-alive")
        head = "\r\n".join((*lines, "", ""))
        if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1 or "\0" in head:
            raise ValueError("a header holds a line end")  # it would begin a header of somebody else's choice
        return head.encode("utf-8", "surrogateescape")
