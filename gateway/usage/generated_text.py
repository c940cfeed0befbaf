"""Counts the text that a model has generated, where its provider does not report usage. Pure; it keeps numbers alone.

A response has at least one token for each piece of text, and about one for each four bytes. All strings of a delta are text but
for ids, roles and types, so that a kind of text that is not known yet counts, too.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway.core import sse

BYTES_PER_TOKEN = 4
BYTES_PER_SOUND_TOKEN = 256
MAX_READ_BYTES = 4 * 1024 * 1024
"""A longer response is counted by its size."""
_SHORT_TEXT = 16
"""Text of so many bytes is a piece that is not worth being decoded."""
_NO_TEXT = frozenset(
    {
        "id", "call_id", "item_id", "response_id", "object", "role", "type", "status", "model", "index", "finish_reason",
        "stop_reason", "signature", "format", "system_fingerprint",
    }
)  # fmt: skip
_MARKS = (b'"delta"', b'"text"', b'"message"')


class _Event(msgspec.Struct):
    """An event of any format. Chat and completions have ``choices``, Responses and Messages have ``type`` and ``delta``."""

    type: Any = None
    choices: Any = None
    delta: Any = None


class _Response(msgspec.Struct):
    """A whole response: chat and completions have ``choices``, Responses ``output``, Messages ``content``."""

    choices: Any = None
    output: Any = None
    content: Any = None
    text: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_response = msgspec.json.Decoder(_Response).decode


class StreamTextCounter:
    """Counts the text in a stream while it passes.

    Events of one stream differ in little but their text. So the bytes around the text are measured once, and an event that is
    hardly longer is one short piece: it is not decoded.
    """

    def __init__(self) -> None:
        self._pieces = 0
        self._bytes = 0
        self._envelope: int | None = None
        """The bytes of the shortest event without its text."""

    @property
    def tokens(self) -> int:
        """The tokens so far: one for each piece, or one for each four bytes if that is more."""
        return max(self._pieces, -(-self._bytes // BYTES_PER_TOKEN))

    def feed(self, block: bytes) -> None:
        """Counts a block of complete events."""
        pieces = block.count(b'"delta"')
        if self._envelope is not None and pieces and block.find(b'""') < 0 and block.find(b"{}") < 0:
            text = len(block) - pieces * self._envelope
            if 0 <= text <= _SHORT_TEXT:
                self._pieces += pieces
                self._bytes += text
                return
        if pieces or any(mark in block for mark in _MARKS):
            for event in sse.split_events(block):
                self._count(event)

    def _count(self, event: bytes) -> None:
        size = _text_size_of_event(sse.event_data(event) or b"null")
        if size:
            self._pieces += 1
            self._bytes += size
            if b'"delta"' in event and b"\\" not in event:  # an escape is longer than what it stands for
                envelope = max(0, len(event) - size)
                self._envelope = envelope if self._envelope is None else min(self._envelope, envelope)


def count_response_tokens(body: bytes) -> int:
    """Returns the tokens of the text in a whole response, by its size where it cannot be read."""
    size = len(body)
    if size <= MAX_READ_BYTES:
        try:
            content = _decode_response(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            size = sum(_sizes((content.choices, content.output, content.content, content.text)))
    return -(-size // BYTES_PER_TOKEN)


def _text_size_of_event(data: bytes) -> int:
    """Returns the bytes of the text that an event adds. Events that repeat the whole text add nothing."""
    if data == b"[DONE]":
        return 0
    try:
        event = _decode_event(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return len(data) if any(mark in data for mark in _MARKS) else 0
    if isinstance(event.choices, list):
        return sum(_sizes(list(_deltas(event.choices))))
    kind = event.type if isinstance(event.type, str) else ""
    size = sum(_sizes(event.delta))
    return -(-size * BYTES_PER_TOKEN // BYTES_PER_SOUND_TOKEN) if kind.endswith("audio.delta") else size


def _deltas(choices: Iterable[Any]) -> Iterator[Any]:
    for choice in choices:
        if isinstance(choice, dict):
            yield choice.get("delta") or choice.get("text") or choice.get("message")


def _sizes(value: Any) -> Iterator[int]:
    """Yields the bytes of each string in a value that is text."""
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, dict):
            todo.extend(inner for key, inner in value.items() if key not in _NO_TEXT and key != "data")
            if isinstance(sound := value.get("data"), str):
                yield -(-len(sound) * BYTES_PER_TOKEN // BYTES_PER_SOUND_TOKEN)
        elif isinstance(value, list | tuple):
            todo.extend(value)
