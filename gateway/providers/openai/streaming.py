"""Reads an upstream's event stream: passes whole events on, finds errors, and distinguishes a finished from a broken stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec

from gateway.core import lenient_json, sse
from gateway.core.upstream_errors import UpstreamFailed, UpstreamInvalid
from gateway.providers.openai.first_content import Beginning, read_beginning
from gateway.providers.openai.stream_ends import StreamEnd

HOLD_SECONDS = 2.0
"""How long life-cycle events wait for the first content."""
_MARK = b"\xef\xbb\xbf"


class StreamChunk(msgspec.Struct, frozen=True):
    """Holds bytes that end behind a whole event, as the upstream sent them; with ``error``, the one event that reports it."""

    data: bytes
    error: Any = None
    """The document of the event."""


class StreamLimits(NamedTuple):
    """``max_event_bytes`` is how large an event may be; ``on_whole`` is called when nothing more has to come."""

    max_event_bytes: int
    on_whole: Callable[[], None]


async def read_events(
    first: bytes, chunks: AsyncIterator[bytes], end: StreamEnd, limits: StreamLimits
) -> AsyncGenerator[StreamChunk, None]:
    """Yields whole events as they arrive, those in ``first`` and then those in the chunks, up to the first error or the end.

    ``[DONE]`` is added where it is omitted. A last event without its empty line is whole if its data are.
    Raises UpstreamInvalid where an event is too large, or where the stream breaks off within an event or before its end.
    """
    splitter = sse.EventSplitter(limits.max_event_bytes)
    is_waiting = True
    async for block in _whole_blocks(first, chunks, splitter, end):
        if (found := sse.find_error(block)) is not None:
            for piece in _split_error(block[: found[0]], found[1]):
                yield piece
            return
        if behind_end := end.feed(block):
            yield StreamChunk(block[:behind_end])
            return
        yield StreamChunk(block)
        if is_waiting and end.is_whole and end.adds_done:
            is_waiting = False
            limits.on_whole()
    if not end.is_whole:
        raise UpstreamInvalid("The upstream's stream broke off.")
    if end.adds_done:
        yield StreamChunk(sse.DONE)


async def _whole_blocks(
    first: bytes, chunks: AsyncIterator[bytes], splitter: sse.EventSplitter, end: StreamEnd
) -> AsyncGenerator[bytes, None]:
    """Yields blocks of whole events. How the connection ends matters only to a stream that is not whole."""
    try:
        if block := splitter.feed(first.removeprefix(_MARK)):
            yield block
        async for chunk in chunks:
            if block := splitter.feed(chunk):
                yield block
    except sse.EventTooLarge as error:
        raise UpstreamInvalid(f"The upstream's stream is broken: {error}.") from None
    except UpstreamFailed:
        if not (end.is_whole and end.adds_done):
            raise
        return
    if rest := splitter.remainder().strip(b"\r\n"):
        if _is_whole_event(rest):
            yield rest + b"\n\n"
        elif not (end.is_whole and end.adds_done):
            raise UpstreamInvalid("The upstream's stream broke off within an event.")


def _is_whole_event(event: bytes) -> bool:
    """Returns whether an event without its empty line is whole: its data are JSON, or it is a comment."""
    data = sse.event_data(event)
    if data is None:
        return all(line.startswith(b":") for line in event.splitlines())
    if data.strip() == b"[DONE]":
        return True
    try:
        lenient_json.decode(data)
    except ValueError:
        return False
    return True


def _split_error(block: bytes, report: Any) -> list[StreamChunk]:
    """Returns the events before the one that reports the error, if there are any, and that one."""
    *before, reporting = sse.split_events(block)
    return ([StreamChunk(b"".join(before))] if before else []) + [StreamChunk(reporting, report)]


class StreamStart:
    """Holds back the beginning of a stream until content comes, so that an error before it has a status of its own.

    Life-cycle events are kept back for ``hold_seconds`` at most.
    """

    def __init__(self, stream: AsyncGenerator[StreamChunk, None], hold_seconds: float = HOLD_SECONDS) -> None:
        self._stream = stream
        self._hold_seconds = hold_seconds
        self._pending: asyncio.Task[StreamChunk | None] | None = None
        self.opening: list[StreamChunk] = []
        """What was kept back and is passed on first."""
        self.report: Any = None
        """The document of an error that came before any content."""
        self.has_content = False

    async def read(self) -> None:
        """Reads until there is content, an error, the end, or no more time. Raises UpstreamFailed."""
        chunk = await anext(self._stream, None)
        release_at = asyncio.get_running_loop().time() + self._hold_seconds
        while chunk is not None:
            found = read_beginning(chunk.data) if chunk.error is None else Beginning(False, chunk.error)
            self.has_content, self.report = found
            if self.report is not None:
                return
            self.opening.append(chunk)
            if self.has_content:
                return
            self._pending = asyncio.ensure_future(_next(self._stream))
            self._pending.add_done_callback(_take_exception)
            await self._wait(release_at)
            if not self._pending.done():
                return
            chunk = await self._pending
            self._pending = None

    def rest(self) -> AsyncGenerator[StreamChunk, None]:
        """Returns what follows ``opening``. Its iteration raises UpstreamFailed."""
        if self._pending is None:
            return self._stream
        return _with_first(self._pending, self._stream)

    def cancel(self) -> None:
        """Stops waiting for the next event."""
        if self._pending is not None:
            self._pending.cancel()

    async def aclose(self) -> None:
        """Closes the stream, also one whose next event is waited for."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait({self._pending})
        await self._stream.aclose()

    async def _wait(self, release_at: float) -> None:
        if self._pending is None:
            return
        try:
            await asyncio.wait({self._pending}, timeout=max(0.0, release_at - asyncio.get_running_loop().time()))
        except asyncio.CancelledError:
            self._pending.cancel()
            raise


async def _with_first(
    first: asyncio.Task[StreamChunk | None], stream: AsyncGenerator[StreamChunk, None]
) -> AsyncGenerator[StreamChunk, None]:
    chunk = await first
    if chunk is None:
        return
    yield chunk
    async for chunk in stream:
        yield chunk


async def _next(stream: AsyncGenerator[StreamChunk, None]) -> StreamChunk | None:
    return await anext(stream, None)


def _take_exception(task: asyncio.Task[StreamChunk | None]) -> None:
    """Looks at the exception: asyncio would log one that nobody has looked at."""
    if not task.cancelled():
        task.exception()
