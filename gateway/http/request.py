"""A request as endpoints see it, whichever server has parsed it, and its body, read within bounds.

A server gives each request a ``Connection``: the bytes of the body, and the way to answer. Everything else here and in the
endpoints is independent of it, so that a faster server can take its place.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from multidict import MultiMapping

from gateway.core.errors import BadRequest, GatewayError, RequestTimeout, RequestTooLarge, UnsupportedEncoding
from gateway.http.body_memory import BodyAccount

STALL_SECONDS = 30.0
"""How long a client may send nothing in the middle of a body."""
MIN_BYTES_PER_SECOND = 1024
"""What a client has to send on average, after the first ``STALL_SECONDS``. Time in which nobody reads does not count."""

HTTP_1_1 = (1, 1)


class InvalidBody(Exception):
    """The bytes of a body are not valid HTTP. A ``Connection`` raises it from ``read_chunk``."""


class Connection(Protocol):
    """The client's end of one request.

    Exactly one answer is sent: ``send`` for a whole one; or ``start``, ``write`` for each chunk, and then ``finish``, or
    ``break_off`` where it must not look like a whole one. Sending raises ConnectionError where the client has gone.
    """

    @property
    def peer_address(self) -> str | None:
        """The address of the other end of the socket, None where there is none any more."""

    @property
    def own_address(self) -> str | None:
        """The address of this end of the socket, None where there is none any more."""

    @property
    def is_closing(self) -> bool:
        """Whether the client has gone, or is about to be disconnected."""

    @property
    def file_descriptor(self) -> int | None:
        """The socket's descriptor, None where the connection is closing."""

    @property
    def has_body(self) -> bool:
        """Whether the request has a body, which may be empty."""

    @property
    def content_length(self) -> int | None:
        """What the client announced, in bytes."""

    def buffered_body(self, limit: int) -> bytes | None:
        """The whole body, where all of it has arrived and it has at most ``limit`` bytes; else None."""

    async def read_chunk(self) -> bytes:
        """The next bytes of the body, ``b""`` at its end. Raises InvalidBody."""

    def send_continue(self) -> None:
        """Sends ``100 Continue``, if the body is still to come and the client's version of HTTP knows it."""

    async def send(self, status: int, headers: Mapping[str, str], body: bytes, *, closes: bool) -> None:
        """Sends a whole answer. With ``closes`` the connection is closed after it."""

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Sends the head of an answer whose body follows in chunks."""

    async def write(self, chunk: bytes) -> None:
        """Sends a chunk, and waits while the client takes no more."""

    async def finish(self) -> None:
        """Ends the body."""

    def break_off(self, last: bytes = b"") -> None:
        """Closes the connection without ending the body, so that no client takes it for a whole one.

        ``last`` is sent before, without waiting: a client that takes nothing must not keep the request.
        """

    def abort(self) -> None:
        """Closes the connection at once, which cancels the request."""


class Request:
    """One request. ``raw_path`` is path and query as the client sent them; ``version`` is HTTP's, such as ``(1, 1)``."""

    __slots__ = ("body_account", "connection", "headers", "method", "raw_path", "version")

    def __init__(
        self, method: str, raw_path: str, headers: MultiMapping[str], version: tuple[int, int], connection: Connection
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.headers = headers
        """Case-insensitive. The server's own object, not a copy."""
        self.version = version
        self.connection = connection
        self.body_account: BodyAccount | None = None
        """Counts the memory that the body takes up; None on public routes."""

    @property
    def media_type(self) -> str:
        """The media type of the body, in lower case and without parameters."""
        declared = self.headers.get("Content-Type")
        if declared is None:
            return "application/octet-stream"
        media_type = declared.partition(";")[0].strip().lower()
        return media_type if media_type.count("/") == 1 else "application/octet-stream"

    async def read(self, limit: int, seconds: float | None = None) -> bytes:
        """Returns the whole body, which has to arrive within ``seconds``; else it has to make progress.

        Raises RequestTooLarge for more than ``limit`` bytes, UnsupportedEncoding, RequestTimeout, BadRequest; RateLimited and
        BodyMemoryExceeded where there is no memory for it.
        """
        self._check_encoding()
        account = self.body_account
        if (whole := self.connection.buffered_body(limit)) is not None:
            self._expects_continue()
            if account is not None:
                account.add(len(whole))
            return whole  # the usual case: it came with the head, so the client does not wait for a 100
        self._check_size(limit)
        announced = self.connection.content_length
        if account is not None and announced is not None:
            await account.reserve(announced)
        if self._expects_continue():
            self.connection.send_continue()
        parts = []
        async for chunk in self.chunks(limit, seconds):
            if account is not None and announced is None:
                account.add(len(chunk))
            parts.append(chunk)
        return b"".join(parts)

    def prepare_chunks(self, limit: int) -> None:
        """Checks a body before its chunks are read. Raises RequestTooLarge, UnsupportedEncoding, BadRequest."""
        self._check_encoding()
        self._accept_body(limit)

    def _check_encoding(self) -> None:
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise UnsupportedEncoding(encoding)
        transfer = self.headers.get("Transfer-Encoding", "chunked").strip().lower()
        if transfer != "chunked":
            raise UnsupportedEncoding(transfer)

    def _expects_continue(self) -> bool:
        expectation = self.headers.get("Expect")
        if expectation is not None and expectation.strip().lower() != "100-continue":
            raise BadRequest("The only expectation that can be met is 100-continue.", code="invalid_header")
        return expectation is not None

    def _accept_body(self, limit: int) -> None:
        """Tells a client that asks first to go on: only here is its credential known to be valid."""
        self._check_size(limit)
        if self._expects_continue():
            self.connection.send_continue()

    def _check_size(self, limit: int) -> None:
        if (self.connection.content_length or 0) > limit:
            raise RequestTooLarge(limit)

    async def chunks(self, limit: int, seconds: float | None = None) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, within ``seconds`` of waiting for the client if there is a limit.

        Raises RequestTooLarge, RequestTimeout, BadRequest.
        """
        size, waited = 0, 0.0
        while True:
            allowed = STALL_SECONDS + size / MIN_BYTES_PER_SECOND if seconds is None else seconds
            began = time.monotonic()
            if not (chunk := await self._next_chunk(allowed - waited)):
                return
            waited += time.monotonic() - began
            size += len(chunk)
            if size > limit:
                raise RequestTooLarge(limit)
            yield chunk

    async def _next_chunk(self, allowed: float) -> bytes:
        try:
            async with asyncio.timeout(min(allowed, STALL_SECONDS)):
                return await self.connection.read_chunk()
        except TimeoutError:
            raise RequestTimeout(_why_late(allowed)) from None
        except InvalidBody:
            raise BadRequest("The request body is not valid HTTP.", code="invalid_body") from None


def _why_late(allowed: float) -> str:
    if allowed >= STALL_SECONDS:
        return f"The request body stood still for {STALL_SECONDS:g} s."
    return "The request body arrived too slowly. Send it without pauses."


class Upload:
    """A body that is passed on while it arrives.

    ``error`` is what went wrong on the client's side: the library that sends the body upstream reports it as a failure of
    its own.
    """

    def __init__(self, request: Request, limit: int) -> None:
        self._request = request
        self._limit = limit
        self.error: GatewayError | None = None

    def open(self) -> AsyncIterator[bytes] | None:
        """Returns the chunks, None for a request without a body. Raises what ``Request.read`` raises before the first byte."""
        if not self._request.connection.has_body:
            return None
        self._request.prepare_chunks(self._limit)
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._request.chunks(self._limit):
                yield chunk
        except GatewayError as error:
            self.error = error
            raise
