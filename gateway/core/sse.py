"""Splits and reads server-sent events as bytes. Pure.

Source of the format: the WHATWG HTML standard, section "Server-sent events". A line ends with LF, CR LF or CR; an empty
line ends an event.
"""

from collections.abc import Iterator
from typing import Any

from gateway.core import lenient_json

MAX_EVENT_BYTES = 16 * 1024 * 1024
DONE = b"data: [DONE]\n\n"
"""OpenAI's last event of a stream."""
_EMPTY_LINES = (b"\n\n", b"\r\r", b"\n\r")
"""The bytes that end a line and an empty one behind it; of CR LF CR LF they are the middle."""


class EventTooLarge(ValueError):
    """Tells that an event grew past the limit without ending."""


class EventSplitter:
    """Cuts a byte stream behind whole events without changing a byte, so that a stream that breaks never ends within one.

    ``feed`` returns every byte up to the end of the last whole event, or ``b""``, and keeps the beginning of an unfinished one.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._unfinished: list[bytes] = []
        self._unfinished_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """Returns what can be passed on after ``chunk`` has come. Raises EventTooLarge."""
        if not self._unfinished and chunk.endswith(b"\n\n"):
            return chunk
        # An empty line may lie across two chunks, so the last byte before this one is searched again.
        overlap = self._unfinished[-1][-1:] if self._unfinished else b""
        end = _end_of_last_event(overlap + chunk) - len(overlap)
        if end <= 0:
            self._keep(chunk)
            return b""
        whole = b"".join((*self._unfinished, chunk[:end]))
        self._unfinished.clear()
        self._unfinished_bytes = 0
        self._keep(chunk[end:])
        return whole

    def remainder(self) -> bytes:
        """Returns what came after the last whole event."""
        return b"".join(self._unfinished)

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._unfinished_bytes += len(data)
        if self._unfinished_bytes > self._max_event_bytes:
            raise EventTooLarge(f"an event is longer than {self._max_event_bytes} bytes")
        self._unfinished.append(data)


def _end_of_last_event(data: bytes) -> int:
    """Returns the index behind the last empty line, or 0."""
    start = max(data.rfind(line) for line in _EMPTY_LINES)
    return 0 if start == -1 else _behind_empty_line(data, start)


def _behind_empty_line(data: bytes, start: int) -> int:
    """Returns the index behind the empty line whose bytes begin at ``start``: with the LF of CR LF CR LF, if it has come."""
    end = start + 2
    return end + 1 if data[end - 1 : end + 1] == b"\r\n" else end


def split_events(block: bytes) -> Iterator[bytes]:
    """Yields the single events of a block that ends behind a whole event, each with its empty line."""
    start = 0
    while start < len(block):
        found = [at for line in _EMPTY_LINES if (at := block.find(line, start)) >= 0]
        end = _behind_empty_line(block, min(found)) if found else len(block)
        yield block[start:end]
        start = end


def event_data(event: bytes) -> bytes | None:
    """Returns the event's data, its lines joined by LF; None for an event without any, a comment."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def find_done(block: bytes) -> int:
    """Returns the index behind the event ``[DONE]``, with which OpenAI's streams end; 0 where there is none."""
    if block.find(b"[DONE]") < 0:  # for bytes, `find` takes half of the time of `in`
        return 0
    end = 0
    for event in split_events(block):
        end += len(event)
        if event_data(event) == b"[DONE]":
            return end
    return 0


def find_error(block: bytes) -> tuple[int, Any] | None:
    """Returns the index behind the first event that reports an error, and its document; None where there is none.

    Only blocks that contain the word are parsed, so that a healthy stream costs three searches a chunk.
    """
    if block.find(b'"error"') < 0 and block.find(b"event: error") < 0 and block.find(b"event:error") < 0:
        return None
    end = 0
    for event in split_events(block):
        end += len(event)
        is_named = _is_named_error(event)
        if (is_named or b'"error"' in event) and (report := _read_report(event_data(event), is_named)) is not None:
            return end, report
    return None


def _is_named_error(event: bytes) -> bool:
    return b"error" in event and any(line.strip() in (b"event: error", b"event:error") for line in event.splitlines())


def _read_report(data: bytes | None, is_named: bool) -> Any:
    """Returns the document; of an event that is named ``error``, whatever it has: text is put under ``error``."""
    try:
        content = lenient_json.decode(data or b"null")
    except ValueError:
        return {"error": (data or b"").decode("utf-8", "replace")} if is_named else None
    report = reported_error(content)
    if report is not None or not is_named or not content:
        return report
    return content if isinstance(content, dict) else {"error": content}


def reported_error(content: Any) -> Any:
    """Returns ``content`` where it is a document that reports an error, else None.

    Such are ``{"error": …}`` and ``{"object": "error", …}`` of every API, ``{"type": "error", …}`` of OpenAI's Responses, and
    Google's list of them.
    """
    if isinstance(content, list):
        return next((item for item in content if isinstance(item, dict) and item.get("error")), None)
    if not isinstance(content, dict):
        return None
    return content if content.get("error") or "error" in (content.get("type"), content.get("object")) else None


def encode_event(data: bytes) -> bytes:
    """Returns one event with ``data``, which must not contain a line end."""
    return b"data: " + data + b"\n\n"
