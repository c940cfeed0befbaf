"""Reading what clients send: bounded in size, bounded in patience, and only after the gate has let them through."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from gateway.core.errors import BadRequest, GatewayError, RequestTimeout, RequestTooLarge, UnsupportedEncoding

STALL_SECONDS = 30.0


async def read(request: web.BaseRequest, limit: int) -> bytes:
    """The whole body. Raises RequestTooLarge, UnsupportedEncoding, RequestTimeout, BadRequest."""
    await _prepare(request, limit)
    content = request.content
    if content.is_eof() and content.total_bytes <= limit:
        return content.read_nowait()  # the usual case: it all came with the head
    parts: list[bytes] = []
    size = 0
    while chunk := await _next(request):
        size += len(chunk)
        if size > limit:
            raise RequestTooLarge(limit)
        parts.append(chunk)
    return b"".join(parts)


class Upload:
    """A body on its way through. Whatever goes wrong on the client's side is kept in ``error``, because the upstream's
    client library reports it as a fault of its own."""

    def __init__(self, request: web.BaseRequest, limit: int) -> None:
        self._request = request
        self._limit = limit
        self.error: GatewayError | None = None

    async def open(self) -> AsyncIterator[bytes] | None:
        """The pieces; None for a request without a body. Raises what ``read`` raises before the first byte."""
        if not self._request.body_exists:
            return None
        await _prepare(self._request, self._limit)
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            while chunk := await _next(self._request):
                size += len(chunk)
                if size > self._limit:
                    raise RequestTooLarge(self._limit)
                yield chunk
        except GatewayError as error:
            self.error = error
            raise


async def _prepare(request: web.BaseRequest, limit: int) -> None:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedEncoding(encoding)
    transfer = request.headers.get("Transfer-Encoding", "chunked").strip().lower()
    if transfer != "chunked":
        raise UnsupportedEncoding(transfer)
    if (request.content_length or 0) > limit:
        raise RequestTooLarge(limit)
    await _answer_expectation(request)


async def _answer_expectation(request: web.BaseRequest) -> None:
    """A client that asks first is told to go on only here, where its credential is known to be good."""
    expectation = request.headers.get("Expect")
    if expectation is None:
        return
    if expectation.strip().lower() != "100-continue":
        raise BadRequest("The only expectation that can be met is 100-continue.", code="invalid_header")
    if request.version >= (1, 1) and request.transport is not None and not request.content.is_eof():
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _next(request: web.BaseRequest) -> bytes:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            return await request.content.readany()
    except TimeoutError:
        raise RequestTimeout(f"The request body stood still for {STALL_SECONDS:g} s.") from None
    except web.RequestPayloadError:
        raise BadRequest("The request body is not valid HTTP.", code="invalid_body") from None
