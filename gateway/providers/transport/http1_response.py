"""Holds a response while it arrives, and gives its body out, decompressed, as fast as it is read."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from gateway.core.upstream_errors import UpstreamFailed, UpstreamInvalid
from gateway.providers.transport.content_encoding import Corrupt, Decoder

BROKEN_OFF = "The upstream's answer broke off."


class ResponseConnection(Protocol):
    """Defines what a response asks of the connection that it arrives on."""

    ends_at: float

    def resume(self) -> None:
        """Goes on to read, where reading had stopped because too much was waiting."""

    def abort(self) -> None:
        """Closes the connection at once."""


class Http1Response:
    """Holds one exchange: from the sending of the request, through the head, to the end of the body.

    A connection fills it. As soon as the response is complete, or has failed, the two are separated: nothing that happens on
    either side later can reach the other.
    """

    __slots__ = (
        "_begins_with_any_byte", "_chunk_timeout", "_connection", "_content_due_at", "_decoder", "_error", "_is_ended",
        "_loop", "_waiter", "buffered", "head_due_at", "headers", "is_head", "is_unread", "parts", "status",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, is_head: bool, chunk_timeout: float, due_at: float) -> None:
        """``due_at`` is a time of the monotonic clock, until which the first content has to come."""
        self.status = 0
        """0 until the head has come."""
        self.headers: Mapping[str, str] = {}
        self.is_head = is_head
        self.is_unread = False
        """Whether the upstream closed a kept-alive connection without a byte of the response."""
        self.parts: list[bytes] = []
        """What has arrived and was not read yet; at most ``buffered`` bytes."""
        self.buffered = 0
        self._loop = loop
        self._connection: ResponseConnection | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_ended = False
        self._error: UpstreamFailed | None = None
        self._decoder: Decoder | None = None
        self._chunk_timeout = chunk_timeout
        self._content_due_at: float | None = due_at
        self.head_due_at = due_at
        self._begins_with_any_byte = True

    async def wait_for_head(self, connection: ResponseConnection) -> None:
        """Waits for the head on the connection that the request was sent on. Raises UpstreamFailed."""
        if self._error is None:
            self._connection = connection
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            except BaseException:
                self.close()
                raise
        if not self.status and self._error is not None:
            raise self._error

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, decompressed. Raises UpstreamFailed where it breaks off or takes too long."""
        while chunk := await self._next_chunk():
            yield chunk

    async def read(self, limit: int) -> bytes:
        """Returns the whole body. Raises UpstreamFailed as ``chunks`` does, and for a body of more than ``limit`` bytes."""
        parts: list[bytes] = []
        size = 0
        while True:
            is_here = self._is_ended and self._decoder is None and self.parts
            chunk = self._take() if is_here else await self._next_chunk()
            size += len(chunk)
            if size > limit:
                raise UpstreamInvalid(f"The upstream's answer is larger than {limit} bytes.")
            parts.append(chunk)
            if not chunk or (self._is_ended and self._decoder is None and not self.parts):
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

    def close(self) -> None:
        """Closes the connection unless the response is complete: then the connection is in the pool again, or another's."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._error = self._error or UpstreamInvalid(BROKEN_OFF)
            connection.abort()

    # What the connection calls.

    def begin(self, status: int, headers: Mapping[str, str], decoder: Decoder | None) -> None:
        """Takes the head."""
        self.status, self.headers, self._decoder = status, headers, decoder

    def wake(self) -> None:
        """Says that there is something new to see."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def end(self) -> None:
        """Says that the body is complete."""
        self._connection = None
        self._is_ended = True
        self.wake()

    def fail(self, error: UpstreamFailed, is_unread: bool = False) -> None:
        """Says that nothing more will come."""
        self._connection = None
        self._error, self.is_unread = self._error or error, is_unread
        self.wake()

    # What reading consists of.

    async def _next_chunk(self) -> bytes:
        """Returns the next chunk, ``b""`` at the end. A chunk that is there already needs no time limit."""
        chunk = await (self._next_part() if self._decoder is None else self._next_decoded(self._decoder))
        if self._content_due_at is not None and self._begins_with_any_byte and chunk and not chunk.isspace():
            self._content_due_at = None
        return chunk

    async def _next_part(self) -> bytes:
        while not self.parts:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                return b""
            await self._wait()
        return self._take()

    def _take(self) -> bytes:
        parts = self.parts
        chunk = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.buffered = 0
        if self._connection is not None:
            self._connection.resume()
        return chunk

    async def _next_decoded(self, decoder: Decoder) -> bytes:
        """Returns the next step of decompression. Between two steps without a wait others get their turn."""
        try:
            if found := decoder.read():
                await asyncio.sleep(0)
                return found
            while part := await self._next_part():
                decoder.feed(part)
                if found := decoder.read():
                    return found
            decoder.finish()
        except Corrupt as error:
            self.close()
            raise UpstreamInvalid(BROKEN_OFF) from error
        return b""

    async def _wait(self) -> None:
        connection = self._connection
        if connection is None:
            raise UpstreamInvalid(BROKEN_OFF)
        now = time.monotonic()
        due_at = self._content_due_at
        connection.ends_at = now + self._chunk_timeout if due_at is None else due_at
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        except BaseException:
            self.close()
            raise
        if self._connection is not None:
            self._connection.ends_at = math.inf
