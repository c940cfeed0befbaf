"""Reads an upstream's event stream: passes whole events on, finds errors, and distinguishes a finished from a broken stream."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from gateway.core import sse
from gateway.core.errors import UpstreamInvalid


class StreamChunk(NamedTuple):
    """Holds bytes that end behind a whole event, as the upstream sent them; with ``error``, the one event that reports it."""

    data: bytes
    error: dict[str, Any] | None = None


class StreamEnd(Enum):
    """Says how a stream shows that it is complete.

    That the connection was closed in order shows nothing: it looks the same when a proxy dies.
    """

    DONE = "[DONE]"
    TERMINAL_EVENT = "an event such as response.completed"
    NONE = "nothing"


_TERMINAL_TYPES = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"}
)


async def read_events(chunks: AsyncIterator[bytes], end: StreamEnd) -> AsyncGenerator[StreamChunk, None]:
    """Yields whole events as they arrive, up to the first error or ``[DONE]``.

    An upstream that omits ``[DONE]`` is tolerated if its last events had a finish reason, and ``[DONE]`` is added. Raises
    UpstreamInvalid where an event is too large, or where the stream breaks off within an event or before its end.
    """
    splitter = sse.EventSplitter()
    recent: deque[bytes] = deque(maxlen=2)
    async for chunk in chunks:
        try:
            block = splitter.feed(chunk)
        except sse.EventTooLarge as error:
            raise UpstreamInvalid(f"The upstream's stream is broken: {error}.") from None
        if not block:
            continue
        if (found := sse.find_error(block)) is not None:
            for piece in _split_error(block[: found[0]], found[1]):
                yield piece
            return
        if end is StreamEnd.DONE and (behind_done := sse.find_done(block)):
            yield StreamChunk(block[:behind_done])
            return
        yield StreamChunk(block)
        if b"data:" in block:
            recent.append(block)
    if splitter.remainder().strip():
        raise UpstreamInvalid("The upstream's stream broke off within an event.")
    if not _is_complete(b"".join(recent), end):
        raise UpstreamInvalid("The upstream's stream broke off.")
    if end is StreamEnd.DONE:
        yield StreamChunk(sse.DONE)


def _split_error(block: bytes, error: dict[str, Any]) -> list[StreamChunk]:
    """Returns the events before the one that reports the error, if there are any, and that one."""
    *before, reporting = sse.split_events(block)
    return ([StreamChunk(b"".join(before))] if before else []) + [StreamChunk(reporting, error)]


def _is_complete(block: bytes, end: StreamEnd) -> bool:
    """Judges by the last two events with data: behind a finish reason only a chunk with usage may follow."""
    if end is StreamEnd.NONE:
        return True
    shows_end = _has_finish_reason if end is StreamEnd.DONE else _is_terminal
    with_data = [event for event in sse.split_events(block) if sse.event_data(event) is not None]
    return any(shows_end(event) for event in with_data[-2:])


def _has_finish_reason(event: bytes) -> bool:
    choices = _content(event).get("choices")
    return isinstance(choices, list) and any(isinstance(item, dict) and item.get("finish_reason") for item in choices)


def _is_terminal(event: bytes) -> bool:
    return _content(event).get("type") in _TERMINAL_TYPES


def _content(event: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(sse.event_data(event) or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
