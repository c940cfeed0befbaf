"""The door, built on aiohttp's client."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace

import aiohttp
from yarl import URL

from gateway.errors import UpstreamFailed, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.upstream.door import Timeouts, UpstreamRequest

KEEP_ALIVE_SECONDS = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection."""
REPLAY_SECONDS = 1.0
REPLAYS = 2


class AiohttpUpstream:
    """One session for the life of the process: a session made anew would lose its connections, one shared and closed
    would break requests in flight. Construct it inside the running loop."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=10),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            trace_configs=[trace],
        )

    async def send(self, request: UpstreamRequest) -> "AiohttpResponse":
        """A kept connection may die in the very moment of its reuse. Such a request was not looked at, and is sent again;
        one that the upstream sat on for longer may have been worked on, and is not."""
        for _ in range(REPLAYS):
            connection = SimpleNamespace(reused=False)
            began = time.monotonic()
            try:
                return await self._send_once(request, connection)
            except UpstreamUnreachable:
                replayable = connection.reused and not isinstance(request.body, AsyncIterator)
                if not replayable or time.monotonic() - began > REPLAY_SECONDS:
                    raise
        return await self._send_once(request, SimpleNamespace(reused=False))

    async def _send_once(self, request: UpstreamRequest, connection: SimpleNamespace) -> "AiohttpResponse":
        try:
            async with asyncio.timeout(self._timeouts.first_byte):
                response = await self._session.request(
                    request.method,
                    URL(request.url, encoded=True),
                    headers=request.headers,
                    data=request.body,
                    allow_redirects=False,
                    trace_request_ctx=connection,
                )
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise _translated(error) from error
        return AiohttpResponse(response, self._timeouts.chunk)

    async def aclose(self) -> None:
        await self._session.close()


class AiohttpResponse:
    """An answer whose head has arrived."""

    def __init__(self, response: aiohttp.ClientResponse, chunk_timeout: float) -> None:
        self._response = response
        self._chunk_timeout = chunk_timeout

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        while True:
            try:
                async with asyncio.timeout(self._chunk_timeout):
                    chunk = await content.readany()
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                raise _translated(error) from error
            if not chunk:
                return
            yield chunk

    async def read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                raise UpstreamInvalid(f"The upstream's answer is larger than {limit} bytes.")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        self._response.release()


async def _note_reuse(_session: object, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.reused = True


def _translated(error: Exception) -> UpstreamFailed:
    """No exception of the library leaves this room; no text of one either, for it may quote the upstream's bytes."""
    match error:
        case TimeoutError():
            return UpstreamTimeout("The upstream took too long to answer.")
        case aiohttp.ClientConnectorError():
            return UpstreamUnreachable("The upstream cannot be reached.")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | OSError():
            return UpstreamUnreachable("The upstream closed the connection before it had answered.")
        case aiohttp.ClientPayloadError():
            return UpstreamInvalid("The upstream's answer broke off.")
        case _:
            return UpstreamInvalid("The upstream's answer is not valid HTTP.")
