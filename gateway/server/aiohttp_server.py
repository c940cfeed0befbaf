"""The adapter between aiohttp's server and the pipeline, and the only module that knows aiohttp's server.

Whole answers are written as one block of bytes: aiohttp's own response builds a header object, fills it in several passes
and writes it with the body in a second step, a seventh of a request's time. What it guards against is guarded against here.
"""

import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, cast

import aiohttp.http
import aiohttp.http_parser
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.core.timeouts import CoarseTimeouts
from gateway.http.request import HTTP_1_1, InvalidBody, Request
from gateway.server.deadlines import ConnectionTimeouts
from gateway.server.head_limits import MAX_HEAD_BYTES
from gateway.server.protocol import HttpProtocol
from gateway.server.response_head import WITHOUT_BODY, encode_head

Handler: TypeAlias = Callable[[Request], Awaitable[None]]
"""Answers a request on its connection."""

KEEP_ALIVE_SECONDS = 75.0
READ_BUFFER_BYTES = 64 * 1024
"""Reading pauses where twice as much of a body waits to be taken."""
LINGERING_SECONDS = 2.0
"""How long an unread body is read on after its answer, so that the client gets to see the answer."""
ONE_BLOCK_BYTES = 256 * 1024
"""A longer body is sent by aiohttp's own response, which waits for a client that reads slowly."""

_TIMEOUTS = ConnectionTimeouts()
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ParserMissing(RuntimeError):
    """aiohttp runs on its parser in Python, which most of its request-smuggling vulnerabilities were in."""


def require_c_parser() -> None:
    """Raises ParserMissing."""
    if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
        raise ParserMissing(
            "aiohttp's C parser is not there (or AIOHTTP_NO_EXTENSIONS is set); install aiohttp from a wheel for this platform"
        )


class AiohttpConnection:
    """A ``http.request.Connection`` on aiohttp's request.

    aiohttp is given this object in place of a response: it asks it to prepare itself, to end, and whether to keep the
    connection open. By then everything has been sent.
    """

    __slots__ = ("_raw", "_stream", "keep_alive")

    def __init__(self, raw: web.BaseRequest) -> None:
        self._raw = raw
        self._stream: web.StreamResponse | None = None
        self.keep_alive = True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Raises ConnectionResetError where the client has gone, so that aiohttp closes the connection."""
        if self.is_closing:
            raise ConnectionResetError("the client has gone")

    async def write_eof(self) -> None:
        """Does nothing: the answer has been sent."""

    @property
    def peer_address(self) -> str | None:
        return self._raw.remote  # known from the beginning: a connection that is closed has no peer any more

    @property
    def own_address(self) -> str | None:
        transport = self._raw.transport
        name = None if transport is None else transport.get_extra_info("sockname")
        return name[0] if isinstance(name, tuple) else None

    @property
    def is_closing(self) -> bool:
        transport = self._raw.transport
        return transport is None or transport.is_closing()

    @property
    def file_descriptor(self) -> int | None:
        transport = self._raw.transport
        if transport is None or transport.is_closing():
            return None
        return cast(int, transport.get_extra_info("socket").fileno())

    @property
    def has_body(self) -> bool:
        return self._raw.body_exists

    @property
    def content_length(self) -> int | None:
        return self._raw.content_length

    def buffered_body(self, limit: int) -> bytes | None:
        content = self._raw.content
        is_whole = content.is_eof() and content.exception() is None
        return content.read_nowait() if is_whole and content.total_bytes <= limit else None

    async def read_chunk(self) -> bytes:
        """Raises InvalidBody."""
        try:
            return await self._raw.content.readany()
        except web.RequestPayloadError:
            raise InvalidBody from None

    def send_continue(self) -> None:
        raw = self._raw
        if raw.version >= HTTP_1_1 and raw.transport is not None and not raw.content.is_eof():
            raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def send(self, status: int, headers: Mapping[str, str], body: bytes, *, closes: bool) -> None:
        """Raises ValueError for a header that contains a line end, ConnectionError where the client goes meanwhile."""
        if len(body) > ONE_BLOCK_BYTES:
            response = web.Response(body=body, status=status, headers=headers)
            await response.prepare(self._raw)
            await response.write_eof()
            self.keep_alive = bool(response.keep_alive)
            await self._wait_until_taken()
            return
        raw = self._raw
        self.keep_alive = raw.keep_alive and not closes
        head = encode_head(status, headers, len(body), version=raw.version, keeps_alive=self.keep_alive)
        has_body = raw.method != "HEAD" and status not in WITHOUT_BODY
        if raw.transport is not None and not raw.transport.is_closing():
            raw.transport.write(head + body if has_body else head)
            await self._wait_until_taken()

    async def _wait_until_taken(self) -> None:
        """Waits where the client takes less than is written: nobody may have more than one response in memory."""
        raw = self._raw
        if raw.transport is not None and raw.transport.get_write_buffer_size():
            cast(HttpProtocol, raw.protocol).watch_unsent()
            await raw.writer.drain()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Raises ConnectionError."""
        self._stream = web.StreamResponse(status=status, headers=headers)
        await self._stream.prepare(self._raw)
        self.keep_alive = bool(self._stream.keep_alive)

    async def write(self, chunk: bytes) -> None:
        """Raises ConnectionError."""
        await self._started.write(chunk)

    async def finish(self) -> None:
        """Raises ConnectionError."""
        await self._started.write_eof()
        await self._wait_until_taken()

    @property
    def _started(self) -> web.StreamResponse:
        if self._stream is None:
            raise RuntimeError("the answer has not been started")
        return self._stream

    def break_off(self, last: bytes = b"") -> None:
        transport = self._raw.transport
        if transport is None:
            return
        if last and not transport.is_closing():
            is_chunked = self._raw.version >= HTTP_1_1 and self._raw.method != "HEAD"
            transport.write(b"%x\r\n%b\r\n" % (len(last), last) if is_chunked else last)
        if self._raw.version < HTTP_1_1:
            # To HTTP/1.0 the end of the connection is the end of the body; only a reset is not taken for one.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.close()

    def abort(self) -> None:
        transport = self._raw.transport
        if transport is not None:
            transport.abort()


class AiohttpServer(web.Server):
    """The factory of connections, for ``loop.create_server``."""

    def __init__(
        self, handler: Handler, timeouts: ConnectionTimeouts = _TIMEOUTS, max_head_bytes: int = MAX_HEAD_BYTES
    ) -> None:
        self.handler = handler
        """May be replaced: requests that begin afterwards are answered by the new one."""

        async def handle(raw: web.BaseRequest) -> web.StreamResponse:
            connection = AiohttpConnection(raw)
            await self.handler(Request(raw.method, raw.raw_path, raw.headers, raw.version, connection))
            cast(HttpProtocol, raw.protocol).request_ended(keeps_alive=connection.keep_alive)
            return cast(web.StreamResponse, connection)

        self._coarse_timeouts = CoarseTimeouts()
        self._timeouts = timeouts

        super().__init__(
            handle,
            handler_cancellation=True,  # a client that leaves cancels its request, and with it the upstream's work
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=LINGERING_SECONDS,
            read_bufsize=READ_BUFFER_BYTES,
            max_head_bytes=max_head_bytes,
            auto_decompress=False,  # compressed bodies are refused, so nothing may unpack them first
        )

    def __call__(self) -> RequestHandler:
        kwargs: dict[str, Any] = self._kwargs
        return HttpProtocol(self, self._coarse_timeouts, self._timeouts, loop=self._loop, **kwargs)
