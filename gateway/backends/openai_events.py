"""An upstream's event stream, made honest: only whole events, errors noticed, an end that is an end."""

from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec

from gateway import sse
from gateway.errors import UpstreamInvalid


class Piece(NamedTuple):
    """Bytes that end behind a whole event, as the upstream sent them. With ``error``, its last event reports one."""

    data: bytes
    error: dict[str, Any] | None = None


async def events_of(chunks: AsyncIterator[bytes], needs_done: bool) -> AsyncIterator[Piece]:
    """Pass whole events on as they arrive.

    With ``needs_done`` the stream ends with ``[DONE]``. An upstream that leaves it out is forgiven if its last event had
    a finish reason; else the answer was cut, and UpstreamInvalid says so.
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
        if (reported := sse.error_in(block)) is not None:
            yield Piece(block[: reported[0]], reported[1])
            return
        yield Piece(block)
        if needs_done and sse.is_done(block):
            return
        recent.append(block)
    if splitter.rest().strip():
        raise UpstreamInvalid("The upstream's stream broke off within an event.")
    if needs_done and recent:
        if not _is_finished(b"".join(recent)):
            raise UpstreamInvalid("The upstream's stream broke off.")
        yield Piece(sse.DONE)


def _is_finished(block: bytes) -> bool:
    """Whether one of the last two events gives a reason for the end: after it only a usage chunk may follow."""
    return any(_finish_reason(event) for event in list(sse.events(block))[-2:])


def _finish_reason(event: bytes) -> bool:
    try:
        choices = msgspec.json.decode(sse.data_of(event) or b"null")["choices"]
        return any(choice.get("finish_reason") for choice in choices)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError, AttributeError):
        return False
