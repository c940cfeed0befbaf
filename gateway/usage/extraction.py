"""Reads usage from responses and from streams. Pure; it keeps nothing of a stream but numbers.

It reads the formats of OpenAI's chat, completions, embeddings and responses, and of Anthropic. A provider may report anything, so
a value that is not a sensible count is ignored.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec

from gateway.core import sse
from gateway.usage import generated_text
from gateway.usage.models import Usage

MAX_REPORTED_TOKENS = 10**8
"""More than any request can use: numbers that a hostile provider reports must not overflow a sum."""
_USAGE = b'"usage"'
_NO_COUNTS: Mapping[str, int] = MappingProxyType({})
_NULLS = (b'"usage":null', b'"usage": null')


class _Content(msgspec.Struct):
    """A response or an event. Events of the Responses API have the usage in ``response``, Anthropic's first in ``message``."""

    usage: Any = None
    response: Any = None
    message: Any = None
    duration: Any = None
    text: Any = None
    """What was transcribed, and from how many seconds, where that is said in detail."""


class _Event(_Content):
    choices: Any = None
    type: Any = None


_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_REPORTED_TOKENS)]


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Count = 0
    cache_write_tokens: _Count = 0
    audio_tokens: _Count = 0


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _Count = 0
    audio_tokens: _Count = 0


class _PlainUsage(msgspec.Struct):
    """What most providers report of a chat. The last four fields are other providers' counts."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    input_tokens: None = None
    prompt_cache_hit_tokens: None = None
    cache_read_input_tokens: None = None
    cache_creation_input_tokens: None = None


class _PlainResponse(msgspec.Struct):
    usage: _PlainUsage


_decode_plain = msgspec.json.Decoder(_PlainResponse).decode
_decode_response = msgspec.json.Decoder(_Content).decode
_decode_event = msgspec.json.Decoder(_Event).decode
T = TypeVar("T", bound=_Content)


def read_usage(reported: Any) -> Usage | None:
    """Returns what an object under ``usage`` reports; None where it is not an object, or all its counts are 0."""
    if not isinstance(reported, dict):
        return None
    counts = _counts(reported)
    of_prompt = _counts(
        reported.get("prompt_tokens_details")
        or reported.get("input_tokens_details")
        or reported.get("input_token_details")  # transcriptions and realtime
    )
    of_completion = _counts(reported.get("completion_tokens_details") or reported.get("output_tokens_details"))
    prompt = counts.get("prompt_tokens") or counts.get("input_tokens", 0)
    completion = counts.get("completion_tokens") or counts.get("output_tokens", 0)
    cached = of_prompt.get("cached_tokens") or counts.get("prompt_cache_hit_tokens", 0)
    written = of_prompt.get("cache_write_tokens", 0)
    if "cache_read_input_tokens" in reported or "cache_creation_input_tokens" in reported:
        # Anthropic counts cached tokens in addition to the input, all others as part of it.
        cached = counts.get("cache_read_input_tokens", 0)
        written = counts.get("cache_creation_input_tokens", 0)
        if "input_tokens" in reported and "prompt_tokens" not in reported:
            prompt += cached + written
    # Some providers count reasoning in the total, but not in the completion.
    completion = max(completion, counts.get("total_tokens", 0) - prompt)
    seconds = _seconds(reported.get("seconds")) if reported.get("type") == "duration" else 0
    if prompt + completion + seconds == 0:
        return None
    return Usage(
        prompt_tokens=min(prompt, MAX_REPORTED_TOKENS),
        completion_tokens=min(completion, MAX_REPORTED_TOKENS),
        cached_tokens=min(cached, prompt),
        cache_write_tokens=min(written, prompt),
        reasoning_tokens=min(of_completion.get("reasoning_tokens", 0), completion),
        audio_prompt_tokens=min(of_prompt.get("audio_tokens", 0), prompt),
        audio_completion_tokens=min(of_completion.get("audio_tokens", 0), completion),
        seconds=seconds,
    )


def usage_of_response(body: bytes) -> Usage | None:
    """Returns the usage in a complete JSON response; None where there is none."""
    try:
        plain = _decode_plain(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        plain = None
    if (
        plain is not None
        and plain.prompt_tokens
        and plain.total_tokens <= plain.prompt_tokens + plain.completion_tokens
    ):
        return _usage_of_plain(plain)
    content = _decode(_decode_response, body)
    if content is None:
        return None
    found = _usage_of(content)
    if found is None and isinstance(content.text, str) and (seconds := _seconds(content.duration)):
        return Usage(seconds=seconds)
    return found


def _usage_of_plain(plain: _PlainUsage) -> Usage:
    """Does what ``read_usage`` does, for a report in which every count is what it should be."""
    of_prompt, of_completion = plain.prompt_tokens_details, plain.completion_tokens_details
    prompt, completion = plain.prompt_tokens, plain.completion_tokens
    if of_prompt is None and of_completion is None:
        return Usage(prompt, completion)
    of_prompt, of_completion = of_prompt or _NO_PROMPT_DETAILS, of_completion or _NO_COMPLETION_DETAILS
    return Usage(
        prompt,
        completion,
        min(of_prompt.cached_tokens, prompt),
        min(of_prompt.cache_write_tokens, prompt),
        min(of_completion.reasoning_tokens, completion),
        min(of_prompt.audio_tokens, prompt),
        min(of_completion.audio_tokens, completion),
    )


_NO_PROMPT_DETAILS, _NO_COMPLETION_DETAILS = _PromptDetails(), _CompletionDetails()


class StreamUsageReader:
    """Reads the usage in a stream while it passes, in blocks of complete events."""

    def __init__(self, drops_usage: bool) -> None:
        """With ``drops_usage``, an event that only reports usage is removed: the client did not ask for it."""
        self._drops_usage = drops_usage
        self._text = generated_text.StreamTextCounter()
        self.usage: Usage | None = None
        """What has been reported so far."""

    @property
    def text_tokens(self) -> int:
        """How many tokens the text has that has passed, where the provider reports none."""
        return self._text.tokens

    def feed(self, block: bytes) -> bytes:
        """Reads a block of complete events, and returns those to pass on."""
        self._text.feed(block)
        if block.find(_USAGE) < 0 or block.count(_USAGE) == sum(map(block.count, _NULLS)):
            return block
        return b"".join(
            event for event in sse.split_events(block) if not (self._read_event(event) and self._drops_usage)
        )

    def _read_event(self, event: bytes) -> bool:
        """Reads the usage in an event. Returns whether the event reports nothing else."""
        content = _decode(_decode_event, sse.event_data(event) or b"null") if _USAGE in event else None
        if content is None:
            return False
        found = _usage_of(content)
        if found is not None:
            # A report covers all that was used so far; some providers report the prompt and the completion apart.
            self.usage = found if self.usage is None else _larger_counts(self.usage, found)
        return content.usage is not None and _says_nothing_else(content)


def count_so_far(reported: Usage | None, prompt: int, tokens: int) -> Usage:
    """Returns what a stream has used: what was reported, but not less than the ``tokens`` that were counted since then."""
    if reported is None:
        return Usage(prompt, tokens)
    if reported.completion_tokens >= tokens:
        return reported
    return msgspec.structs.replace(reported, completion_tokens=tokens)


def _usage_of(content: _Content) -> Usage | None:
    inner = (place.get("usage") for place in (content.response, content.message) if isinstance(place, dict))
    return next((read_usage(usage) for usage in (content.usage, *inner) if usage is not None), None)


def _decode(decode: Callable[[bytes], T], data: bytes) -> T | None:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _larger_counts(one: Usage, other: Usage) -> Usage:
    return Usage(
        *(max(pair) for pair in zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True))
    )


def _says_nothing_else(content: _Event) -> bool:
    """Returns whether an event of a chat or a completion has no choice with content. Other events have a type."""
    choices = content.choices
    if choices is None:
        return content.type is None and content.response is None and content.message is None
    return isinstance(choices, list) and all(map(_is_empty, choices))


def _is_empty(choice: Any) -> bool:
    """Returns whether a choice has no content: LiteLLM sends one with the usage, others one that names the role again."""
    if not isinstance(choice, dict) or choice.get("text") or choice.get("finish_reason"):
        return False
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return not any(value for name, value in delta.items() if name != "role")
    return not delta


def _seconds(value: Any) -> int:
    """Returns the whole seconds of a duration, 0 for what is none. Some servers write it as a string."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        return 0
    return math.ceil(min(seconds, MAX_REPORTED_TOKENS)) if seconds > 0 else 0


def _counts(numbers: Any) -> Mapping[str, int]:
    """Returns the positive numbers of an object as counts; without everything else."""
    if not isinstance(numbers, dict):
        return _NO_COUNTS
    return {
        name: int(min(value, MAX_REPORTED_TOKENS))
        for name, value in numbers.items()
        if (type(value) is int or type(value) is float) and value > 0
    }
