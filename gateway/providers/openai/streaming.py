"""An upstream's event stream, made honest: only whole events, errors noticed, an end that is an end."""

from collections import deque
from collections.abc import AsyncIterator
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from gateway.core import sse
from gateway.core.errors import UpstreamInvalid


class StreamChunk(NamedTuple):
    """Bytes that end behind a whole event, as the upstream sent them. With ``error``, they are the event that reports it."""

    data: bytes
    error: dict[str, Any] | None = None


class StreamEnd(Enum):
    """How a stream shows that it is whole. A clean end of the connection shows nothing: a proxy's death looks the same."""

    DONE = "[DONE]"
    TERMINAL_EVENT = "an event such as response.completed"
    FREE = "nothing"


_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"})


async def events_of(chunks: AsyncIterator[bytes], end: StreamEnd) -> AsyncIterator[StreamChunk]:
    """Pass whole events on as they arrive. Raises UpstreamInvalid where the stream is not whole.

    An upstream that leaves ``[DONE]`` out is forgiven if its last events had a finish reason, and gets it added.
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
        if (reported := sse.find_error(block)) is not None:
            for piece in _up_to_error(block[: reported[0]], reported[1]):
                yield piece
            return
        if end is StreamEnd.DONE and (done_at := sse.find_done(block)):
            yield StreamChunk(block[:done_at])
            return
        yield StreamChunk(block)
        if b"data:" in block:
            recent.append(block)
    if splitter.remainder().strip():
        raise UpstreamInvalid("The upstream's stream broke off within an event.")
    if not _is_whole(b"".join(recent), end):
        raise UpstreamInvalid("The upstream's stream broke off.")
    if end is StreamEnd.DONE:
        yield StreamChunk(sse.DONE)


def _up_to_error(block: bytes, error: dict[str, Any]) -> list[StreamChunk]:
    *good, reporting = sse.split_events(block)
    return ([StreamChunk(b"".join(good))] if good else []) + [StreamChunk(reporting, error)]


def _is_whole(block: bytes, end: StreamEnd) -> bool:
    """Judged by the last two events: behind a finish reason only a usage chunk may follow."""
    if end is StreamEnd.FREE:
        return True
    shows_end = _finish_reason if end is StreamEnd.DONE else _is_terminal
    said = [event for event in sse.split_events(block) if sse.event_data(event) is not None]
    return any(shows_end(event) for event in said[-2:])


def _finish_reason(event: bytes) -> bool:
    choices = _content(event).get("choices")
    return isinstance(choices, list) and any(isinstance(item, dict) and item.get("finish_reason") for item in choices)


def _is_terminal(event: bytes) -> bool:
    return _content(event).get("type") in _TERMINAL


def _content(event: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(sse.event_data(event) or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
