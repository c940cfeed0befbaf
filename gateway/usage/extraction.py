"""Usage, read from whole answers and from streams. Pure: a tap, never a buffer.

The forms read are those of OpenAI's chat, completions, embeddings and responses, and Anthropic's; numbers are an upstream's
word, so whatever is no sensible count is taken for none.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from gateway.core import sse
from gateway.usage.models import Usage

MAX_REPORTED_TOKENS = 10**8
"""More than any request can use: what a hostile upstream reports must not overflow a sum."""
_USAGE = b'"usage"'
_NO_COUNTS: Mapping[str, int] = MappingProxyType({})
_NULLS = (b'"usage":null', b'"usage": null')


class _Content(msgspec.Struct):
    """An answer, or an event. Responses' events have the usage within ``response``, Anthropic's first one in ``message``."""

    usage: Any = None
    response: Any = None
    message: Any = None


class _Event(_Content):
    choices: Any = None


_decode_answer = msgspec.json.Decoder(_Content).decode
_decode_event = msgspec.json.Decoder(_Event).decode
T = TypeVar("T", bound=_Content)


def read_usage(reported: Any) -> Usage | None:
    """The object that stands under ``usage``; None where it says nothing. A sum of nothing at all is no report."""
    if not isinstance(reported, dict):
        return None
    counts = _counts(reported)
    of_prompt = _counts(reported.get("prompt_tokens_details") or reported.get("input_tokens_details"))
    of_completion = _counts(reported.get("completion_tokens_details") or reported.get("output_tokens_details"))
    prompt = counts.get("prompt_tokens") or counts.get("input_tokens", 0)
    completion = counts.get("completion_tokens") or counts.get("output_tokens", 0)
    cached = of_prompt.get("cached_tokens") or counts.get("prompt_cache_hit_tokens", 0)
    written = of_prompt.get("cache_write_tokens", 0)
    if "cache_read_input_tokens" in reported or "cache_creation_input_tokens" in reported:
        # Anthropic counts what concerns its cache beside the input, everybody else within it.
        cached = counts.get("cache_read_input_tokens", 0)
        written = counts.get("cache_creation_input_tokens", 0)
        if "input_tokens" in reported and "prompt_tokens" not in reported:
            prompt += cached + written
    # Some leave reasoning out of the completion, but not out of the total.
    completion = max(completion, counts.get("total_tokens", 0) - prompt)
    if prompt + completion == 0:
        return None
    return Usage(
        prompt_tokens=min(prompt, MAX_REPORTED_TOKENS),
        completion_tokens=min(completion, MAX_REPORTED_TOKENS),
        cached_tokens=min(cached, prompt),
        cache_write_tokens=min(written, prompt),
        reasoning_tokens=min(of_completion.get("reasoning_tokens", 0), completion),
        audio_prompt_tokens=min(of_prompt.get("audio_tokens", 0), prompt),
        audio_completion_tokens=min(of_completion.get("audio_tokens", 0), completion),
    )


def usage_of_response(body: bytes) -> Usage | None:
    """Of a whole JSON answer."""
    content = _read(_decode_answer, body)
    return None if content is None else _of_content(content)


class StreamUsageReader:
    """Reads a stream that passes by, in pieces of whole events. With ``drops_usage`` the event that only reports usage is taken
    out: the client did not ask for it."""

    def __init__(self, drops_usage: bool) -> None:
        self._drops_usage = drops_usage
        self.usage: Usage | None = None
        self.text_chunks = 0
        """How many pieces of text passed: about as many as the tokens of an answer that nobody counted."""

    def feed(self, block: bytes) -> bytes:
        """The events to pass on."""
        self.text_chunks += _pieces_in(block)
        if _USAGE not in block or block.count(_USAGE) == sum(map(block.count, _NULLS)):
            return block
        return b"".join(event for event in sse.split_events(block) if not (self._read(event) and self._drops_usage))

    def _read(self, event: bytes) -> bool:
        """Whether it reports usage and nothing else."""
        content = _read(_decode_event, sse.event_data(event) or b"null") if _USAGE in event else None
        if content is None:
            return False
        found = _of_content(content)
        if found is not None:
            # Reports are of all that was used so far; some come in two halves.
            self.usage = found if self.usage is None else _larger(self.usage, found)
        return content.usage is not None and isinstance(content.choices, list) and all(map(_is_empty, content.choices))


def _pieces_in(block: bytes) -> int:
    """Chunks of text, without those that only begin or end an answer."""
    deltas = block.count(b'"delta"')
    if deltas:
        return max(0, deltas - block.count(b'"delta":{}') - block.count(b'"content":""'))
    return block.count(b'"text"') - block.count(b'"text":""')


def _of_content(content: _Content) -> Usage | None:
    inner = (place.get("usage") for place in (content.response, content.message) if isinstance(place, dict))
    return next((read_usage(usage) for usage in (content.usage, *inner) if usage is not None), None)


def _read(decode: Callable[[bytes], T], data: bytes) -> T | None:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _larger(one: Usage, other: Usage) -> Usage:
    return Usage(
        *(max(pair) for pair in zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True))
    )


def _is_empty(choice: Any) -> bool:
    """A choice that says nothing: LiteLLM sends one along with the usage."""
    return isinstance(choice, dict) and not (choice.get("delta") or choice.get("text") or choice.get("finish_reason"))


def _counts(numbers: Any) -> Mapping[str, int]:
    """Without what is no count."""
    if not isinstance(numbers, dict):
        return _NO_COUNTS
    return {
        name: int(min(value, MAX_REPORTED_TOKENS))
        for name, value in numbers.items()
        if (type(value) is int or type(value) is float) and value > 0
    }
