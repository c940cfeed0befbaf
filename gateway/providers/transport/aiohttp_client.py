"""Implements the transport with aiohttp's client."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache

import aiohttp
from yarl import URL

from gateway.core.timeouts import CoarseTimeouts
from gateway.core.upstream_errors import UpstreamFailed, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.providers.transport import http1_limits as limits
from gateway.providers.transport.base import Timeouts, TransportRequest
from gateway.providers.transport.connection import ConnectionClosed, Connector
from gateway.providers.transport.resolver import LookUp, Resolver


class AiohttpTransport:
    """Sends requests through one session for the life of the process. Construct it inside the running loop.

    A session for each request would lose its connections; one that is shared and closed would break requests in flight.
    """

    def __init__(self, timeouts: Timeouts, look_up: LookUp = socket.getaddrinfo) -> None:
        self._timeouts = timeouts
        self._coarse_timeouts = CoarseTimeouts()
        self._resolver = Resolver(look_up)
        self._session = _create_session(Connector(self._resolver, is_kept_alive=True), timeouts.connect)
        self._resend_session = _create_session(Connector(self._resolver, is_kept_alive=False), timeouts.connect)

    async def send(self, request: TransportRequest) -> "AiohttpTransportResponse":
        """Returns the response once its head has arrived. Raises UpstreamUnreachable, UpstreamTimeout, UpstreamInvalid.

        An upstream may close a kept-alive connection at the moment of its reuse. It has not read such a request, which is
        sent once more, on a new connection, unless its body is a stream. A request that the upstream had for longer, or to
        which it has sent a byte, it may have worked on already.
        """
        began = time.monotonic()
        try:
            return await self._send_once(self._session, request)
        except UpstreamUnreachable as error:
            cause = error.__cause__
            is_unread = isinstance(cause, ConnectionClosed) and cause.is_unread
            can_resend = is_unread and (request.body is None or isinstance(request.body, bytes))
            if not can_resend or time.monotonic() - began > limits.MAX_RESEND_SECONDS:
                raise
        return await self._send_once(self._resend_session, request)

    async def _send_once(self, session: aiohttp.ClientSession, request: TransportRequest) -> "AiohttpTransportResponse":
        content_due_at = time.monotonic() + self._timeouts.first_byte
        try:
            with self._coarse_timeouts.within(self._timeouts.first_byte):
                response = await session.request(
                    request.method,
                    _url(request.url),
                    headers=request.headers,
                    data=request.body,
                    allow_redirects=False,
                )
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise _translate(error) from error
        return AiohttpTransportResponse(response, self._coarse_timeouts, self._timeouts.chunk, content_due_at)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._session.close()
        await self._resend_session.close()
        await self._resolver.close()


class AiohttpTransportResponse:
    """Holds a response whose head has arrived."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        coarse_timeouts: CoarseTimeouts,
        chunk_timeout: float,
        content_due_at: float,
    ) -> None:
        """``content_due_at`` is a time of the monotonic clock."""
        self.status = response.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in reversed(list(response.headers.items()))
        }
        self._response = response
        self._coarse_timeouts = coarse_timeouts
        self._chunk_timeout = chunk_timeout
        self._content_due_at: float | None = content_due_at
        """None once content has come."""
        self._begins_with_any_byte = True
        self._connection_closed = _connection_closed(response)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, decompressed. Raises UpstreamFailed where it breaks off or takes too long."""
        while chunk := await self._next_chunk():
            yield chunk

    async def read(self, limit: int) -> bytes:
        """Returns the whole body. Raises UpstreamFailed as ``chunks`` does, and for a body of more than ``limit`` bytes."""
        parts: list[bytes] = []
        size = 0
        while chunk := await self._next_chunk():
            size += len(chunk)
            if size > limit:
                raise UpstreamInvalid(f"The upstream's answer is larger than {limit} bytes.")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def expect_content(self) -> None:
        """Says that whoever reads calls ``begin_content``."""
        self._begins_with_any_byte = False

    def begin_content(self) -> None:
        """Says that content has come."""
        self._content_due_at = None

    def limit_pause(self, seconds: float) -> None:
        """Limits the time between two chunks."""
        self._chunk_timeout = min(self._chunk_timeout, seconds)

    async def _next_chunk(self) -> bytes:
        """Returns the next chunk, ``b""`` at the end. A chunk that is there already needs no time limit."""
        content = self._response.content
        try:
            if not (chunk := content.read_nowait()) and not content.at_eof():
                with self._coarse_timeouts.within(self._time_left()):
                    chunk = await content.readany()
            if self._content_due_at is not None and self._begins_with_any_byte and chunk and not chunk.isspace():
                self._content_due_at = None
            if not chunk and self._connection_closed is not None and self._connection_closed.done():
                self._connection_closed.result()
            return chunk
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _translate(error) from error

    def _time_left(self) -> float:
        return self._chunk_timeout if self._content_due_at is None else self._content_due_at - time.monotonic()

    def close(self) -> None:
        """Gives the connection back if the body was read to its end, else closes it."""
        self._response.release()


def _connection_closed(response: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """Returns how the connection ends, for a body that ends with its connection: a reset is not the end of such a body."""
    has_end = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    connection = response.connection
    if has_end or connection is None or connection.protocol is None:
        return None
    closed = connection.protocol.closed
    if closed is not None:
        # asyncio would log an exception that nobody has looked at.
        closed.add_done_callback(lambda future: future.cancelled() or future.exception())
    return closed


def _create_session(connector: Connector, connect_seconds: float) -> aiohttp.ClientSession:
    """Returns a session. ``connect_seconds`` limits resolving, connecting and the TLS handshake together."""
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        read_bufsize=limits.READ_BUFFER_BYTES,
        max_line_size=limits.MAX_HEADER_BYTES,
        max_field_size=limits.MAX_HEADER_BYTES,
        max_headers=limits.MAX_HEADERS,
    )


@lru_cache(maxsize=256)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


def _translate(error: Exception) -> UpstreamFailed:
    """Returns our error for one of the library. It names the kind alone: the library's text may quote the upstream's bytes."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return UpstreamTimeout("The upstream took too long to answer: no connection could be made in time.")
        case TimeoutError():
            return UpstreamTimeout("The upstream took too long to answer.")
        case aiohttp.ClientConnectorDNSError():
            return UpstreamUnreachable("The upstream cannot be reached: its name was not found.")
        case aiohttp.ClientConnectorCertificateError():
            return UpstreamUnreachable("The upstream cannot be reached: its certificate is not accepted.")
        case aiohttp.ClientSSLError():
            return UpstreamUnreachable("The upstream cannot be reached: the TLS handshake failed.")
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return UpstreamUnreachable("The upstream cannot be reached: it refuses connections.")
        case aiohttp.ClientConnectorError():
            return UpstreamUnreachable("The upstream cannot be reached: the network reports an error.")
        case ConnectionClosed() | aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | OSError():
            return UpstreamUnreachable("The upstream closed the connection before it had answered.")
        case aiohttp.ClientPayloadError():
            return UpstreamInvalid("The upstream's answer broke off.")
        case aiohttp.ClientResponseError(message=text) if "content-encoding" in text.lower():
            encoding = "zstd" if "zstd" in text else "br" if "(br)" in text or "brotli" in text else "another one"
            return UpstreamInvalid(
                f"The upstream's answer has a content encoding that was not asked for and cannot be read: {encoding}."
            )
        case _:
            return UpstreamInvalid("The upstream's answer is not valid HTTP.")
