"""Implements the transport on connections of our own, at a small part of what a general client costs."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from gateway.core.timeouts import CoarseTimeouts
from gateway.core.upstream_errors import UpstreamFailed, UpstreamInvalid, UpstreamUnreachable
from gateway.providers.transport import http1_limits as limits
from gateway.providers.transport.addresses import Addresses
from gateway.providers.transport.base import Timeouts, TransportRequest
from gateway.providers.transport.connecting import Connecting
from gateway.providers.transport.http1_connection import NOT_HTTP, ConnectionPool, Http1Connection
from gateway.providers.transport.http1_request import TOKEN, head_start, parse_url
from gateway.providers.transport.http1_response import Http1Response
from gateway.providers.transport.proxies import Origin, Proxies
from gateway.providers.transport.resolver import LookUp, Resolver

MAX_ONE_WRITE_BYTES = 256 * 1024
"""A body up to this size is sent with its head; a larger one in pieces, so that an early refusal is seen."""

_FRAMING = frozenset({"host", "connection", "transfer-encoding", "upgrade", "trailer", "te", "keep-alive"})


class Framing(NamedTuple):
    """Says how the body of a request is sent: ``length`` is None for one in chunks, or for none at all."""

    is_chunked: bool
    length: int | None


class _Destination(NamedTuple):
    """Holds what is the same for all requests with one method to one URL."""

    head_start: str
    pool: ConnectionPool


class Http1Transport:
    """Sends requests on kept-alive connections. Construct it inside the running loop.

    ``environ`` names proxies; ``ssl_context`` is the one of the system by default.
    """

    def __init__(
        self,
        timeouts: Timeouts,
        look_up: LookUp = socket.getaddrinfo,
        environ: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeouts = timeouts
        self._coarse_timeouts = CoarseTimeouts()
        self._addresses = Addresses(Resolver(look_up))
        self._proxies = Proxies(os.environ if environ is None else environ)
        self._connecting = Connecting(self._addresses, min(timeouts.connect, timeouts.first_byte), ssl_context)
        self._pools: dict[Origin, ConnectionPool] = {}
        self._destination = lru_cache(maxsize=1024)(self._find_destination)

    async def send(self, request: TransportRequest) -> Http1Response:
        """Returns the response once its head has arrived. Raises UpstreamUnreachable, UpstreamTimeout, UpstreamInvalid.

        An upstream may close a kept-alive connection at the moment of its reuse. It has not read such a request, which is
        sent once more, on a new connection, unless its body is a stream. A request that the upstream had for longer, or to
        which it has sent a byte, it may have worked on already. An error of a body that is a stream is raised as it is.
        """
        began = time.monotonic()
        try:
            start, pool = self._destination(request.method, request.url)
            head, framing = encode_head(start, request)
        except ValueError as error:
            raise UpstreamInvalid(NOT_HTTP) from error
        connection = pool.take()
        if connection is None:
            connection = await pool.open()
        response = Http1Response(
            self._loop, request.method == "HEAD", self._timeouts.chunk, began + self._timeouts.first_byte
        )
        try:
            await self._exchange(connection, response, request, (head, framing))
            return response
        except UpstreamUnreachable:
            can_resend = response.is_unread and (request.body is None or isinstance(request.body, bytes))
            if not can_resend or time.monotonic() - began > limits.MAX_RESEND_SECONDS:
                raise
        response = Http1Response(
            self._loop, request.method == "HEAD", self._timeouts.chunk, time.monotonic() + self._timeouts.first_byte
        )
        await self._exchange(await pool.open(), response, request, (head, framing))
        return response

    async def _exchange(
        self,
        connection: Http1Connection,
        response: Http1Response,
        request: TransportRequest,
        encoded: tuple[bytes, Framing],
    ) -> None:
        """Sends a request and waits for the head of its response."""
        head, framing = encoded
        body = request.body
        if body is None:
            connection.send(response, head)
        elif isinstance(body, bytes) and len(body) <= MAX_ONE_WRITE_BYTES:
            connection.send(response, head + body)
        else:
            connection.send(response, head)
            pieces = _pieces(body) if isinstance(body, bytes) else body
            upload = asyncio.create_task(_send_body(connection, pieces, framing))
            connection.upload(upload)
            try:
                await response.wait_for_head(connection)
            except UpstreamFailed:
                if upload.done() and not upload.cancelled() and (error := upload.exception()) is not None:
                    raise error from None
                raise
            return
        await response.wait_for_head(connection)

    def _find_destination(self, method: str, text: str) -> _Destination:
        """Raises ValueError, UpstreamUnreachable."""
        url = parse_url(text)
        proxy = self._proxies.choose(url.origin)
        pool = self._pools.get(url.origin)
        if pool is None:
            open_connection = partial(self._connecting.open, url.origin, proxy)
            pool = self._pools[url.origin] = ConnectionPool(self._coarse_timeouts, open_connection)
        return _Destination(head_start(method, url, proxy), pool)

    async def aclose(self) -> None:
        """Closes all connections."""
        for pool in self._pools.values():
            pool.close()
        await self._addresses.close()
        self._connecting.close()
        await asyncio.sleep(0)  # The event loop closes sockets in its next turn.


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), MAX_ONE_WRITE_BYTES):
        yield body[start : start + MAX_ONE_WRITE_BYTES]


async def _send_body(connection: Http1Connection, body: AsyncIterable[bytes], framing: Framing) -> None:
    """Sends a body in pieces. Raises what its iteration raises, and UpstreamInvalid where it is not as long as it said."""
    left = framing.length or 0
    async for piece in body:
        if framing.is_chunked:
            if piece:
                await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            continue
        left -= len(piece)
        if left < 0:
            raise UpstreamInvalid("The request's body is longer than its Content-Length.")
        await connection.write(piece)
    if left:
        raise UpstreamInvalid("The request's body is shorter than its Content-Length.")
    if framing.is_chunked:
        await connection.write(b"0\r\n\r\n")


def encode_head(start: str, request: TransportRequest) -> tuple[bytes, Framing]:
    """Returns the head of a request, and how its body is framed. Raises ValueError for what no head may contain."""
    lines, length = [start], None
    for name, value in request.headers.items():
        if (prefix := _header_prefix(name)) is None:
            length = value
        else:
            lines.append(f"{prefix}{value}\r\n")
    body = request.body
    if isinstance(body, bytes):
        framing = Framing(False, len(body))
    elif body is not None:
        framing = Framing(length is None, None if length is None else _length(length))
    else:
        framing = Framing(False, None if request.method in ("GET", "HEAD", "OPTIONS", "TRACE") else 0)
    if framing.length is not None:
        lines.append(f"Content-Length: {framing.length}\r\n")
    elif framing.is_chunked:
        lines.append("Transfer-Encoding: chunked\r\n")
    lines.append("\r\n")
    text = "".join(lines)
    count = len(lines) - 1 + start.count("\n")
    if text.count("\n") != count or text.count("\r") != count or "\0" in text:
        raise ValueError("has a header with a line break")
    return text.encode("utf-8", "surrogateescape"), framing


def _length(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("has an invalid Content-Length")
    return int(text)


@lru_cache(maxsize=512)
def _header_prefix(name: str) -> str | None:
    """Returns the beginning of a header's line, None for ``Content-Length``, which follows from the body. Raises ValueError."""
    if TOKEN.fullmatch(name) is None or name.lower() in _FRAMING:
        raise ValueError("has a header that the transport sets itself, or an invalid one")
    return None if name.lower() == "content-length" else f"{name}: "
