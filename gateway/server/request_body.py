"""Holds the body of one request between the socket and whoever reads it, within bounds."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from aiohttp.http import HttpProcessingError
from aiohttp.streams import StreamReader

from gateway.http.request import InvalidBody
from gateway.server.request_framing import part_of_chunks

READ_BUFFER_BYTES = 64 * 1024
"""Reading pauses where twice as much of a body waits to be taken."""


class BodyState(Enum):
    """Says how far a body has come."""

    ARRIVING = auto()
    WHOLE = auto()
    INVALID = auto()
    """Its bytes are not valid HTTP, so it is not known where it ends."""


class RequestBody(ABC):
    """A body as whoever reads it sees it. ``total`` is how many bytes have arrived, without their framing."""

    __slots__ = ("state", "total")
    state: BodyState
    total: int

    @abstractmethod
    def take(self) -> bytes:
        """Returns what has arrived and was not taken, ``b""`` for nothing."""

    @abstractmethod
    async def read(self) -> bytes:
        """Returns the next bytes, ``b""`` at the end. Raises InvalidBody."""


class ArrivedBody(RequestBody):
    """A body that came together with its head."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.state = BodyState.WHOLE
        self.total = len(data)

    def take(self) -> bytes:
        """Returns the body, once."""
        data, self._data = self._data, b""
        return data

    async def read(self) -> bytes:
        """Returns the body, once."""
        return self.take()


class ArrivingBody(RequestBody):
    """The bytes of a body that have arrived and nobody has taken yet.

    A subclass says which bytes belong to it. ``update_reading`` is called where ``is_paused`` has changed.
    """

    __slots__ = ("_chunks", "_discards", "_is_paused", "_size", "_update_reading", "_waiter")

    def __init__(self, update_reading: Callable[[], None]) -> None:
        self._update_reading = update_reading
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_paused = False
        self._discards = False
        self._waiter: asyncio.Future[None] | None = None
        self.state = BodyState.ARRIVING
        self.total = 0

    @property
    def is_paused(self) -> bool:
        """Whether so much waits to be taken that no more is read."""
        return self._is_paused

    @abstractmethod
    def feed(self, data: bytes, start: int) -> int:
        """Takes what belongs to the body from ``data`` at ``start``, and returns where the rest begins."""

    def take(self) -> bytes:
        """Returns what has arrived, ``b""`` for nothing."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        if self._is_paused:
            self._is_paused = False
            self._update_reading()
        return data

    async def read(self) -> bytes:
        """Returns the next bytes, ``b""`` at the end. Raises InvalidBody."""
        while not self._chunks and self.state is BodyState.ARRIVING:  # what arrives may be nothing but framing
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._chunks:
            return self.take()
        if self.state is BodyState.INVALID:
            raise InvalidBody
        return b""

    def discard(self) -> None:
        """Throws away what has arrived, and what will."""
        self._discards = True
        self.take()

    def _add(self, data: bytes) -> None:
        self.total += len(data)
        if self._discards:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > 2 * READ_BUFFER_BYTES and not self._is_paused:
            self._is_paused = True
            self._update_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class SizedBody(ArrivingBody):
    """A body whose length the head has named."""

    __slots__ = ("_left",)

    def __init__(self, length: int, update_reading: Callable[[], None]) -> None:
        super().__init__(update_reading)
        self._left = length

    def feed(self, data: bytes, start: int) -> int:
        """Takes as many bytes as are left."""
        left, available = self._left, len(data) - start
        if available < left:
            self._left = left - available
            self._add(data[start:] if start else data)
            self._wake()
            return len(data)
        self._left = 0
        self.state = BodyState.WHOLE
        self._add(data[start : start + left])
        self._wake()
        return start + left


class ChunkedBody(ArrivingBody):
    """A body in chunks, which aiohttp's parser decodes. The parser has been given the head, and nothing behind it."""

    __slots__ = ("_parser", "_reader")

    def __init__(self, parser: Any, reader: StreamReader, update_reading: Callable[[], None]) -> None:
        super().__init__(update_reading)
        self._parser = parser
        self._reader = reader

    def feed(self, data: bytes, start: int) -> int:
        """Takes the bytes up to the end of the last chunk."""
        end = part_of_chunks(data, start)
        try:
            messages, _, tail = self._parser.feed_data(data[start:end])
        except HttpProcessingError:
            self._end(BodyState.INVALID)
            return end
        decoded = self._take_decoded()
        if decoded:
            self._add(decoded)
        if messages or tail or self._reader.exception() is not None:
            self._end(BodyState.INVALID)
        elif self._reader.is_eof():
            self._end(BodyState.WHOLE)
        else:
            self._wake()
        return end

    def _take_decoded(self) -> bytes:
        # The reader raises its exception, if it has one, before it returns what came before that.
        return b"" if self._reader.exception() is not None else self._reader.read_nowait()

    def _end(self, state: BodyState) -> None:
        self.state = state
        self._wake()
