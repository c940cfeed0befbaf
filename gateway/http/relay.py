"""Answers back to the client, and what an error looks like once the first byte is out.

Then no status can be sent any more. An event stream gets one event that says the error, never ``[DONE]``; every other body
just stops. In both cases the connection is broken off without a proper end, so that no client takes it for a whole answer.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator

from aiohttp import web

from gateway import sse
from gateway.backends.base import EVENT_STREAM, Answer
from gateway.errors import GatewayError, UpstreamReported
from gateway.http.call import Call

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def send(call: Call, answer: Answer) -> web.StreamResponse:
    """Send an answer. Raises GatewayError only while nothing has been sent."""
    try:
        if isinstance(answer.body, bytes):
            return _whole(call, answer, answer.body)
        return await _streamed(call, answer, answer.body)
    finally:
        answer.close()


def _whole(call: Call, answer: Answer, body: bytes) -> web.Response:
    call.bytes_sent = len(body)
    headers = {**answer.headers, **call.headers(), "Content-Type": answer.content_type}
    return web.Response(body=body, status=answer.status, headers=headers)


async def _streamed(call: Call, answer: Answer, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    waited = time.perf_counter()
    first = await anext(pieces, b"")  # an error up to here still has a status of its own
    call.upstream_seconds += time.perf_counter() - waited
    is_events = answer.content_type.startswith(EVENT_STREAM)
    headers = {**answer.headers, **call.headers(), "Content-Type": answer.content_type}
    if is_events:
        headers |= _STREAM_HEADERS
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(call.request)
    try:
        await _write_all(call, response, first, pieces)
    except GatewayError as error:
        await _break_off(call, response, error if is_events else None)
    except asyncio.CancelledError:
        if call.cut is None:
            raise
        _revive()
        await _break_off(call, response, call.cut if is_events else None)
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
    return response


async def _write_all(call: Call, response: web.StreamResponse, first: bytes, pieces: AsyncIterator[bytes]) -> None:
    if first:
        call.bytes_sent += len(first)
        await response.write(first)
    async for piece in pieces:
        call.bytes_sent += len(piece)
        await response.write(piece)
    await response.write_eof()


async def _break_off(call: Call, response: web.StreamResponse, error: GatewayError | None) -> None:
    if error is not None and not isinstance(error, UpstreamReported):
        await response.write(sse.encode(error.body()))
    if call.request.transport is not None:
        call.request.transport.close()


def _revive() -> None:
    """The cancellation was our own and is dealt with; the task goes on to its end."""
    if (task := asyncio.current_task()) is not None:
        task.uncancel()
