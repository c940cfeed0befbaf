"""Implements the transport with aiohttp's client."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache, partial
from typing import cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from gateway.core.errors import UpstreamFailed, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.providers.transport.base import Timeouts, TransportRequest
from gateway.providers.transport.timeouts import CoarseTimeouts

KEEP_ALIVE_SECONDS = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection."""
RESEND_SECONDS = 1.0
MAX_RESENDS = 2
MAX_HEAD_BYTES = 4 * 1024 * 1024
"""What may come in until the head of a response is complete, the first bytes of its body included."""


class AiohttpTransport:
    """Sends requests through one session for the life of the process. Construct it inside the running loop.

    A session for each request would lose its connections; one that is shared and closed would break requests in flight.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._coarse_timeouts = CoarseTimeouts()
        self._session = aiohttp.ClientSession(
            connector=_Connector(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            response_class=_Response,
        )

    async def send(self, request: TransportRequest) -> "AiohttpTransportResponse":
        """Returns the response once its head has arrived. Raises UpstreamUnreachable, UpstreamTimeout, UpstreamInvalid.

        An upstream may close a kept-alive connection at the moment of its reuse. It has not read such a request, which is
        sent again, unless its body is a stream; a request that the upstream had for longer it may have worked on already.
        """
        for _ in range(MAX_RESENDS):
            began = time.monotonic()
            try:
                return await self._send_once(request)
            except UpstreamUnreachable as error:
                was_unread = isinstance(error.__cause__, _DeadConnection)
                can_resend = was_unread and (request.body is None or isinstance(request.body, bytes))
                if not can_resend or time.monotonic() - began > RESEND_SECONDS:
                    raise
        return await self._send_once(request)

    async def _send_once(self, request: TransportRequest) -> "AiohttpTransportResponse":
        try:
            with self._coarse_timeouts.within(self._timeouts.first_byte):
                response = await self._session.request(
                    request.method,
                    _url(request.url),
                    headers=request.headers,
                    data=request.body,
                    allow_redirects=False,
                )
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise _translate(error) from error
        return AiohttpTransportResponse(response, self._coarse_timeouts, self._timeouts.chunk)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._session.close()


class AiohttpTransportResponse:
    """Holds a response whose head has arrived."""

    def __init__(self, response: aiohttp.ClientResponse, coarse_timeouts: CoarseTimeouts, chunk_timeout: float) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        """Case-insensitive."""
        self._response = response
        self._coarse_timeouts = coarse_timeouts
        self._chunk_timeout = chunk_timeout
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

    async def _next_chunk(self) -> bytes:
        """Returns the next chunk, ``b""`` at the end. A chunk that is there already needs no time limit."""
        content = self._response.content
        try:
            if not (chunk := content.read_nowait()) and not content.at_eof():
                with self._coarse_timeouts.within(self._chunk_timeout):
                    chunk = await content.readany()
            if not chunk and self._connection_closed is not None and self._connection_closed.done():
                self._connection_closed.result()
            return chunk
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _translate(error) from error

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


class _DeadConnection(aiohttp.ClientError):
    """Tells that a kept-alive connection was closed before it carried a byte of the response."""


class _ClientConnection(ResponseHandler):
    """Knows whether this connection has carried a request before, and how many bytes came before the head of a response."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.was_used = False
        self.awaits_head = False
        self.head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self.awaits_head:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES and self.transport is not None:
                # A flood of interim responses would keep the event loop busy for as long as it lasts.
                self.transport.abort()
                return
        super().data_received(data)


class _Connector(aiohttp.TCPConnector):
    """Creates connections of the class above."""

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=10)
        self._factory = partial(cast(type[ResponseHandler], _ClientConnection), loop=asyncio.get_running_loop())


class _Response(aiohttp.ClientResponse):
    """Tells its connection when a head is awaited, and raises an error of its own where the connection was dead already."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        connection_protocol = connection.protocol
        if not isinstance(connection_protocol, _ClientConnection):
            return await super().start(connection)
        was_used, connection_protocol.was_used = connection_protocol.was_used, True
        connection_protocol.awaits_head, connection_protocol.head_bytes = True, 0
        try:
            return await super().start(connection)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if was_used and connection_protocol.head_bytes == 0:
                raise _DeadConnection from error
            raise
        finally:
            connection_protocol.awaits_head = False


@lru_cache(maxsize=256)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


def _translate(error: Exception) -> UpstreamFailed:
    """Returns our error for one of the library. Its text is not passed on, because it may quote the upstream's bytes."""
    match error:
        case TimeoutError():
            return UpstreamTimeout("The upstream took too long to answer.")
        case aiohttp.ClientConnectorError():
            return UpstreamUnreachable("The upstream cannot be reached.")
        case _DeadConnection() | aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | OSError():
            return UpstreamUnreachable("The upstream closed the connection before it had answered.")
        case aiohttp.ClientPayloadError():
            return UpstreamInvalid("The upstream's answer broke off.")
        case _:
            return UpstreamInvalid("The upstream's answer is not valid HTTP.")
