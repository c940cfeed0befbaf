"""Says when an event stream is whole: at its terminal event, or once every choice has finished.

That the connection was closed in order shows nothing: it looks the same when a proxy dies. What comes behind the end, or does
not, changes nothing. Events of a healthy stream are searched for a few bytes, and parsed only where those occur.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.core import lenient_json, sse
from gateway.core.json_body import JsonObject
from gateway.providers.base import ProviderRequest

_MAX_CHOICES = 1024
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"[^"]')


class StreamEnd(Protocol):
    """Follows one stream, block by block."""

    adds_done: bool
    """Whether ``[DONE]`` is added where the upstream omits it."""

    @property
    def is_whole(self) -> bool:
        """Whether the stream has shown its end, so that nothing has to follow."""

    def feed(self, block: bytes) -> int:
        """Returns the index in a block of whole events behind which nothing may follow; 0 where it goes on."""


class NoEnd:
    """Follows a stream that may end anywhere."""

    adds_done = False
    is_whole = True

    def feed(self, block: bytes) -> int:
        """Returns 0."""
        return 0


class DoneEnd:
    """Follows a stream that ends with ``[DONE]``. With ``choices`` it is whole, too, once that many have finished."""

    def __init__(self, choices: int | None) -> None:
        self._choices = choices
        self._seen: set[Any] = set()
        self._finished: set[Any] = set()
        self.adds_done = choices is not None
        self.is_whole = False
        """Whether ``[DONE]`` has come, or every choice has finished."""

    def feed(self, block: bytes) -> int:
        """Returns the index behind ``[DONE]``."""
        if end := sse.find_done(block):
            self.is_whole = True
            return end
        if self._choices is not None and (self._choices > 1 or _FINISH.search(block) is not None):
            for content, _end in _contents(block):
                self._note_choices(content.get("choices"))
            self.is_whole = len(self._finished) >= self._choices and self._seen <= self._finished
        return 0

    def _note_choices(self, choices: Any) -> None:
        if not isinstance(choices, list) or len(self._seen) > _MAX_CHOICES:
            return
        for position, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            known = index if isinstance(index, int) else position
            self._seen.add(known)
            if choice.get("finish_reason"):
                self._finished.add(known)


class TerminalEnd:
    """Follows a stream that ends with its ``count``-th event of one of some types, or with ``[DONE]``."""

    adds_done = False

    def __init__(self, types: "TerminalTypes", count: int = 1) -> None:
        self._types = types
        self._missing = count

    @property
    def is_whole(self) -> bool:
        """Whether the last of those events has come."""
        return self._missing <= 0

    def feed(self, block: bytes) -> int:
        """Returns the index behind the last of those events."""
        if self._types.pattern.search(block) is not None:
            for content, end in _contents(block):
                if content.get("type") in self._types.names:
                    self._missing -= 1
                    if self._missing <= 0:
                        return end
        if end := sse.find_done(block):
            self._missing = 0
        return end


class TerminalTypes(NamedTuple):
    """Types of events, and the pattern that every one of them has in it."""

    names: frozenset[str]
    pattern: re.Pattern[bytes]


def _types(*names: str) -> TerminalTypes:
    return TerminalTypes(
        frozenset(names), re.compile(rb'"type"\s*:\s*"(?:%b)"' % "|".join(map(re.escape, names)).encode())
    )


RESPONSES = _types("response.completed", "response.incomplete", "response.failed", "response.cancelled", "error")
MESSAGES = _types("message_stop")
TRANSCRIPTION = _types("transcript.text.done")
SPEECH = _types("speech.audio.done")
IMAGES = _types("image_generation.completed", "image_edit.completed")
_TERMINAL: Mapping[str, TerminalTypes] = MappingProxyType(
    {
        "responses": RESPONSES,
        "messages": MESSAGES,
        "audio/transcriptions": TRANSCRIPTION,
        "audio/translations": TRANSCRIPTION,
        "audio/speech": SPEECH,
        "images/generations": IMAGES,
        "images/edits": IMAGES,
    }
)


def stream_end(request: ProviderRequest) -> StreamEnd:
    """Returns what follows the stream that answers a request."""
    path, fields = request.path, request.fields
    if path in ("chat/completions", "completions"):
        return DoneEnd(_expected_choices(path, fields))
    if path.startswith("threads/"):
        return DoneEnd(None)
    if path.startswith("responses/"):
        return TerminalEnd(RESPONSES)
    if (types := _TERMINAL.get(path)) is not None:
        return TerminalEnd(types, _count(fields, "n") if types is IMAGES else 1)
    return NoEnd()


def wants_stream(request: ProviderRequest) -> bool:
    """Returns whether a request asks for an event stream, also on a route that is passed on."""
    raw = request.fields.raw_values.get("stream") if isinstance(request.fields, JsonObject) else None
    return request.stream or (raw is not None and memoryview(raw).nbytes == 4 and bytes(raw) == b"true")


def _expected_choices(path: str, fields: Mapping[str, Any] | None) -> int:
    if not isinstance(fields, JsonObject):
        return 1
    prompts = _prompts(fields) if path == "completions" else 1
    return min(_count(fields, "n") * prompts, _MAX_CHOICES)


def _count(fields: Mapping[str, Any] | None, name: str) -> int:
    """Returns the number in a field, 1 where there is none."""
    raw = fields.raw_values.get(name) if isinstance(fields, JsonObject) else None
    digits = b"" if raw is None or memoryview(raw).nbytes > 9 else bytes(raw)
    return max(1, int(digits)) if digits.isdigit() else 1


def _prompts(fields: JsonObject) -> int:
    """Returns how many prompts a completion has: a list of strings or of lists of numbers has several."""
    raw = fields.raw_values.get("prompt")
    if raw is None or bytes(memoryview(raw)[:1]) != b"[":
        return 1
    try:
        prompts = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return 1
    return len(prompts) if prompts and bytes(memoryview(prompts[0])[:1]) in (b'"', b"[") else 1


def _contents(block: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    """Yields the objects in the events of a block, each with the index behind its event."""
    end = 0
    for event in sse.split_events(block):
        end += len(event)
        try:
            content = lenient_json.decode(sse.event_data(event) or b"null")
        except ValueError:
            continue
        if isinstance(content, dict):
            yield content, end
