"""The door, built on aiohttp's client."""

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
REPLAY_SECONDS = 1.0
REPLAYS = 2
MAX_HEAD_BYTES = 4 * 1024 * 1024
"""What may come in until an answer's head is complete, the first pieces of its body with it."""


class AiohttpTransport:
    """One session for the life of the process: a session made anew would lose its connections, one shared and closed
    would break requests in flight. Construct it inside the running loop."""

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
        """A kept connection may die in the very moment of its reuse. Such a request was not looked at, and is sent again;
        one that the upstream sat on for longer may have been worked on, and is not."""
        for _ in range(REPLAYS):
            began = time.monotonic()
            try:
                return await self._send_once(request)
            except UpstreamUnreachable as error:
                died = isinstance(error.__cause__, _DeadConnection)
                replayable = died and (request.body is None or isinstance(request.body, bytes))
                if not replayable or time.monotonic() - began > REPLAY_SECONDS:
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
            raise _translated(error) from error
        return AiohttpTransportResponse(response, self._coarse_timeouts, self._timeouts.chunk)

    async def aclose(self) -> None:
        await self._session.close()


class AiohttpTransportResponse:
    """An answer whose head has arrived."""

    def __init__(self, response: aiohttp.ClientResponse, coarse_timeouts: CoarseTimeouts, chunk_timeout: float) -> None:
        self._response = response
        self._coarse_timeouts = coarse_timeouts
        self._chunk_timeout = chunk_timeout
        self._connection_closed = _connection_closed(response)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self._next():
            yield chunk

    async def read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while chunk := await self._next():
            size += len(chunk)
            if size > limit:
                raise UpstreamInvalid(f"The upstream's answer is larger than {limit} bytes.")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _next(self) -> bytes:
        """The next piece, b"" at the end. A piece that is there already needs no clock."""
        content = self._response.content
        try:
            if not (chunk := content.read_nowait()) and not content.at_eof():
                with self._coarse_timeouts.within(self._chunk_timeout):
                    chunk = await content.readany()
            if not chunk and self._connection_closed is not None and self._connection_closed.done():
                self._connection_closed.result()
            return chunk
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error

    def close(self) -> None:
        self._response.release()


def _connection_closed(response: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """For a body that ends with its connection: how the connection ends. A reset is not the end of such a body."""
    has_end = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    connection = response.connection
    if has_end or connection is None or connection.protocol is None:
        return None
    ended = connection.protocol.closed
    if ended is not None:
        ended.add_done_callback(lambda future: future.cancelled() or future.exception())
    return ended


class _DeadConnection(aiohttp.ClientError):
    """A connection that had been kept open was closed before it carried a byte of the answer."""


class _ClientConnection(ResponseHandler):
    """A connection that knows whether it has carried a request before, and how much came before an answer's head."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.was_used = False
        self.awaits_head = False
        self.head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self.awaits_head:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES and self.transport is not None:
                # A flood of interim answers would keep the event loop busy for as long as it lasts.
                self.transport.abort()
                return
        super().data_received(data)


class _Connector(aiohttp.TCPConnector):
    """Makes connections of our kind."""

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=10)
        self._factory = partial(cast(type[ResponseHandler], _ClientConnection), loop=asyncio.get_running_loop())


class _Response(aiohttp.ClientResponse):
    """Tells its connection when its head is awaited, and a dead connection from a live one that hangs up."""

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


def _translated(error: Exception) -> UpstreamFailed:
    """No exception of the library leaves this room; no text of one either, for it may quote the upstream's bytes."""
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
