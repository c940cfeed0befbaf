"""Server-sent events as bytes: where one ends, what one says. No I/O.

Source of the format: the WHATWG HTML standard, section "Server-sent events". A line ends with LF, CR LF or CR; an empty
line ends an event.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

MAX_EVENT_BYTES = 16 * 1024 * 1024
DONE = b"data: [DONE]\n\n"


class EventTooLarge(ValueError):
    """An event grew past ``MAX_EVENT_BYTES`` without ending."""


class EventSplitter:
    """Cuts a byte stream behind whole events, and changes no byte.

    ``feed`` answers every byte up to the end of the last whole event, or ``b""``; the beginning of an unfinished event
    stays inside, so that a stream that breaks never ends in half an event.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> bytes:
        if not self._parts and chunk.endswith(b"\n\n"):
            return chunk
        # An empty line may lie across two chunks: the last two bytes held are looked at again.
        overlap = self._take_tail()
        searched = overlap + chunk
        end = _end_of_last_event(searched)
        if end == 0:
            self._hold(searched)
            return b""
        whole = b"".join((*self._parts, searched[:end]))
        self._parts.clear()
        self._held = 0
        self._hold(searched[end:])
        return whole

    def rest(self) -> bytes:
        """What came after the last whole event."""
        return b"".join(self._parts)

    def _take_tail(self) -> bytes:
        if not self._parts:
            return b""
        last = self._parts.pop()
        tail = last[-2:]
        if len(last) > 2:
            self._parts.append(last[:-2])
        self._held -= len(tail)
        return tail

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        self._held += len(data)
        if self._held > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        self._parts.append(data)


def _end_of_last_event(data: bytes) -> int:
    """The index behind the last empty line, or 0."""
    end = max(data.rfind(b"\n\n"), data.rfind(b"\r\r"), data.rfind(b"\n\r")) + 2
    if end == 1:
        return 0
    # CR LF CR LF: the line ends with its LF, not between the two.
    if data[end - 1 : end + 1] == b"\r\n":
        end += 1
    return end


def events(block: bytes) -> Iterator[bytes]:
    """The single events of a block that ends behind a whole event, each with its empty line."""
    start = 0
    while start < len(block):
        end = _end_of_first_event(block, start)
        yield block[start:end]
        start = end


def _end_of_first_event(data: bytes, start: int) -> int:
    candidates = [at for mark in (b"\n\n", b"\r\r", b"\n\r") if (at := data.find(mark, start)) >= 0]
    if not candidates:
        return len(data)
    end = min(candidates) + 2
    return end + 1 if data[end - 1 : end + 1] == b"\r\n" else end


def data_of(event: bytes) -> bytes | None:
    """The event's data, its lines joined by LF; None for an event without any (a comment)."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def end_mark(block: bytes) -> int:
    """The index behind the event that is OpenAI's end mark, ``[DONE]``; 0 where there is none."""
    if b"[DONE]" not in block:
        return 0
    end = 0
    for event in events(block):
        end += len(event)
        if data_of(event) == b"[DONE]":
            return end
    return 0


def error_in(block: bytes) -> tuple[int, dict[str, Any]] | None:
    """The first event that reports an error: the index behind it, and the error object. None where there is none.

    Only blocks that contain the word are parsed, so that a healthy stream costs one search a chunk.
    """
    if b'"error"' not in block:
        return None
    end = 0
    for event in events(block):
        end += len(event)
        if b'"error"' in event and (error := _error_of(data_of(event))):
            return end, error
    return None


def _error_of(data: bytes | None) -> dict[str, Any] | None:
    try:
        content = msgspec.json.decode(data or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    error = content.get("error") if isinstance(content, dict) else None
    if not error:
        return None
    return error if isinstance(error, dict) else {"message": str(error)}


def encode(data: bytes) -> bytes:
    """One event that says ``data`` (which must not contain a line end)."""
    return b"data: " + data + b"\n\n"
