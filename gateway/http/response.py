"""Answers back to the client, and what an error looks like once the first byte is out.

Then no status can be sent any more. An event stream gets one event that says the error, never ``[DONE]``; every other body
just stops. In both cases the connection is broken off without a proper end, so that no client takes it for a whole answer.
"""

import socket
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import msgspec
from aiohttp import web

from gateway.core import sse
from gateway.core.errors import GatewayError, UpstreamReported
from gateway.http.buffered_response import WholeResponse
from gateway.http.context import RequestContext
from gateway.providers.base import EVENT_STREAM, ProviderResponse

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_ONE_BLOCK = 256 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def send(ctx: RequestContext, answer: ProviderResponse) -> web.StreamResponse:
    """Send an answer. Where this raises after ``ctx.started`` was set, ``break_off`` is what is left to do."""
    try:
        if isinstance(answer.body, bytes):
            return _whole(ctx, answer, answer.body)
        return await _streamed(ctx, answer, answer.body)
    finally:
        answer.close()


async def break_off(ctx: RequestContext, started: web.StreamResponse, error: GatewayError, body: bytes) -> None:
    """End an answer that has begun, so that nobody takes it for a whole one. ``body`` is what may be told of the error."""
    is_told = isinstance(error, UpstreamReported)
    if started.content_type == EVENT_STREAM and not is_told:
        await started.write(sse.encode_event(body))
    transport = ctx.request.transport
    if transport is None:
        return
    if ctx.request.version < (1, 1):
        # To HTTP/1.0 the end of the connection is the end of the body; only a reset is not taken for one.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.close()


def _whole(ctx: RequestContext, answer: ProviderResponse, body: bytes) -> web.StreamResponse:
    return whole(ctx, answer.status, body, {**answer.headers, "Content-Type": answer.content_type})


def whole(ctx: RequestContext, status: int, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """An answer whose body is there already, with the headers that every answer has."""
    ctx.bytes_sent = len(body)
    every = {**headers, **ctx.headers()}
    if len(body) > _ONE_BLOCK:
        return web.Response(body=body, status=status, headers=every)  # it minds a client that reads slowly
    return WholeResponse(status, every, body)


def json(ctx: RequestContext, status: int, content: Any) -> web.StreamResponse:
    """An answer of the gateway's own, which nobody may keep."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return whole(ctx, status, msgspec.json.encode(content), headers)


async def _streamed(ctx: RequestContext, answer: ProviderResponse, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    try:
        waited = time.perf_counter()
        first = await anext(pieces, b"")  # an error up to here still has a status of its own
        ctx.upstream_seconds += time.perf_counter() - waited
        headers = {**answer.headers, **ctx.headers(), "Content-Type": answer.content_type}
        if answer.content_type.startswith(EVENT_STREAM):
            headers |= _STREAM_HEADERS
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(ctx.request)
        ctx.started = response
        await _write_all(ctx, response, first, pieces)
        return response
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


async def _write_all(
    ctx: RequestContext, response: web.StreamResponse, first: bytes, pieces: AsyncIterator[bytes]
) -> None:
    if first:
        ctx.bytes_sent += len(first)
        await response.write(first)
    async for piece in pieces:
        ctx.bytes_sent += len(piece)
        await response.write(piece)
    await response.write_eof()
