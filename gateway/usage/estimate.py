"""Estimates how many tokens a request may use, before it is sent. Pure. It raises nothing: the provider refuses invalid requests.

A prompt is estimated by its size: with today's tokenizers, text has about four bytes to a token, and never less than one. Images
and audio are sent as base64, which has many more bytes to a token. Whatever is not known to be a setting counts as prompt.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from gateway.core.json_body import JsonObject
from gateway.core.sound_length import NO_SOUND, SoundLength
from gateway.usage.attachments import BYTES_PER_TOKEN, split_attachments
from gateway.usage.models import Usage
from gateway.usage.provider_tools import TOOL_FIELDS, has_provider_tools

RawValues: TypeAlias = Mapping[str, msgspec.Raw]

MAX_TOKENS_PER_ATTACHMENT = 50_000
"""What the smallest picture is billed as, at most: it is billed by its width and height, not by its bytes."""
DEFAULT_CONTEXT_WINDOW = 1_000_000
"""The longest prompt of a model whose context window is not known."""
MAX_OUTPUT_TOKENS = 128 * 1024
"""The longest response of the models that are known today, whatever their context window is."""
MAX_SETTING_BYTES = 256
"""A longer setting counts as prompt."""
_LARGEST = 10**9
_COMPLETION_LIMITS: Mapping[str, tuple[str, ...]] = {
    "chat/completions": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}
"""By endpoint, the fields that limit the completion. A field of another endpoint limits nothing where upstreams ignore it."""
_ANY_LIMIT = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_FIRST_OF_LIST = re.compile(rb'\[\s*(["\[])')
_MAX_NUMBER_BYTES = 32
_IMAGES = frozenset({"images/generations", "images/edits", "images/variations"})
SOUND_ENDPOINTS = frozenset({"audio/transcriptions", "audio/translations"})
UNIT_ENDPOINTS = _IMAGES | SOUND_ENDPOINTS | {"audio/speech"}
"""Endpoints that are priced by other units than tokens, too."""
_WITHOUT_COMPLETION = UNIT_ENDPOINTS | {"embeddings", "moderations", "rerank"}
_HEARD_PER_SECOND, _WRITTEN_PER_SECOND = 20, 10
"""The most tokens that a second of sound has, as a part of the prompt and as text."""
COUNTING_ENDPOINTS = frozenset({"messages/count_tokens", "responses/input_tokens"})
"""Endpoints that only count tokens. They use none."""

_SETTINGS = frozenset(
    {
        "model", "stream", "stream_options", "n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens",
        "temperature", "top_p", "top_k", "min_p", "seed", "user", "stop", "stop_sequences", "presence_penalty",
        "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls", "reasoning_effort", "reasoning",
        "thinking", "verbosity", "modalities", "audio", "voice", "speed", "size", "quality", "style", "format", "output_format",
        "encoding_format", "dimensions", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "include", "truncation", "background", "max_tool_calls", "top_n", "return_documents",
        "input_type", "truncate", "embedding_types", "cache_control", "stream_format", "moderation", "tool_choice",
        "function_call",
    }
)  # fmt: skip
"""Fields that are no part of the prompt, as long as they are short."""
_TEXTS = frozenset(
    {
        "messages", "input", "prompt", "instructions", "system", "tools", "functions", "query", "documents", "suffix",
        "prediction", "response_format", "text", "contents", "chat_template_kwargs", "guided_json", "guided_regex",
        "guided_grammar", "structured_outputs", "output_config",
    }
)  # fmt: skip
"""Fields whose tokens are all in the body, but for what ``_refers_elsewhere`` finds in them."""
_MAX_SEARCHED_BYTES = 16 * 1024 * 1024
"""A longer field is more than most models read, whatever is in it."""
_REFERENCE = re.compile(
    rb'"(?:[a-z_]*ur[il]|file_?ids?|vector_store_ids?|cached_?content)"\s*:\s*(?!"data:)["\[]|"item_reference"'
    rb'|"audio"\s*:\s*\{[^{}]*"id"'
)
"""In lower case: a key whose value is an address or an id. A quotation mark within a text has a backslash before it."""
_REFERENCE_PARTS = (b'url"', b'uri"', b'id"', b'ids"', b"cached", b"item_reference")
"""Each match of the pattern contains one of them."""
_ITEM_ID = re.compile(rb'"id"\s*:\s*"')
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")
_PLAIN_CHAT = (_SETTINGS - {"n", "best_of"}) | {"messages"}
"""Fields of most chats."""
_MAX_SHORT_BYTES = 256 * 1024
_NOT_PLAIN = (*_REFERENCE_PARTS, b"\\u00", b"base64,", b'"data"')
"""In lower case: what is not in messages that have all of their prompt in them, as text."""


class Estimate(msgspec.Struct, frozen=True):
    """Numbers of language-model tokens.

    ``completion`` is the limit that the request sets for all its choices together, None without one. ``choices`` is the number of
    completions that it asks for.
    """

    prompt: int
    completion: int | None
    choices: int = 1
    has_completion: bool = True
    max_prompt: int | None = 0
    """The most tokens that the prompt can have; None where parts of it are not in the body."""
    has_provider_tools: bool = False
    """Whether the provider may call tools by itself, so that no context window bounds all that it reads."""
    images: int = 0
    characters: int = 0
    """Of the text to be spoken."""
    sound: SoundLength = NO_SOUND
    """Of what is to be transcribed. Only money counts it: its tokens are known when they are reported."""

    def completion_or(self, default: int) -> int:
        """Returns the limit of the completion; without one, ``default`` tokens for each choice."""
        return min(default * self.choices, _LARGEST) if self.completion is None else self.completion

    def most(self, context_window: int | None) -> Usage:
        """Returns the most that the request can use of a model; ``context_window`` None where that is not known."""
        window = context_window or DEFAULT_CONTEXT_WINDOW
        return self._usage(window, window if self.max_prompt is None else min(self.max_prompt, window))

    def expected(self, context_window: int | None) -> Usage:
        """Returns what the request uses if its response has the greatest length."""
        window = context_window or DEFAULT_CONTEXT_WINDOW
        return self._usage(window, window if self.max_prompt is None else self.prompt)

    def _usage(self, window: int, prompt: int) -> Usage:
        completion = self.completion_or(min(window, MAX_OUTPUT_TOKENS))
        if self.sound is NO_SOUND and not (self.images or self.characters):
            return Usage(_LARGEST if self.has_provider_tools else prompt, completion)
        seconds = self.sound.most
        heard = min(seconds * _HEARD_PER_SECOND, max(window - prompt, 0))
        prompt = _LARGEST if self.has_provider_tools else prompt + heard
        return self.with_units(
            Usage(prompt, min(completion + seconds * _WRITTEN_PER_SECOND, _LARGEST), audio_prompt_tokens=heard)
        )

    def used(self, tokens: int) -> Usage:
        """Returns what was used where nobody reports it; the response has so many tokens by its text."""
        heard = self.sound.most * _HEARD_PER_SECOND
        written = tokens if self.has_completion or heard else 0
        return self.with_units(Usage(self.prompt + heard, written, audio_prompt_tokens=heard))

    def heard(self, seconds: int) -> Usage:
        """Returns what was used where nothing but the length of the sound is reported."""
        return msgspec.structs.replace(self, sound=SoundLength(seconds, seconds)).used(0)

    def with_units(self, usage: Usage) -> Usage:
        """Returns the usage with the units besides tokens. Seconds that are reported stay."""
        seconds = usage.seconds or self.sound.most
        return msgspec.structs.replace(usage, images=self.images, characters=self.characters, seconds=seconds)

    @property
    def min_prompt(self) -> int:
        """The number of prompt tokens even if the prompt has long words and much JSON syntax."""
        return -(-self.prompt // 8)

    @property
    def min_completion(self) -> int:
        """The completion tokens that must be affordable: the limit, or one token for each choice without a limit."""
        return self.choices if self.completion is None else self.completion


NOTHING_ESTIMATED = Estimate(0, 0, has_completion=False)


class Bounds(msgspec.Struct, frozen=True):
    """What a request may use: ``tokens`` for rates, where an estimate is enough, ``money`` for budgets, where it is the most.
    ``least`` must be affordable."""

    estimate: Estimate
    tokens: Usage
    money: Usage
    least: Usage


def estimate(endpoint: str, fields: JsonObject | None, sound: SoundLength = NO_SOUND) -> Estimate:
    """Returns the estimate for a request to ``endpoint``, such as ``chat/completions``. Without a JSON body it is 0."""
    if fields is None or endpoint in COUNTING_ENDPOINTS:
        return NOTHING_ESTIMATED
    values = fields.raw_values
    is_short = len(fields.body) <= _MAX_SHORT_BYTES  # a long body is searched field by field, without its attachments
    if is_short and endpoint == "chat/completions" and _PLAIN_CHAT.issuperset(values) and "messages" in values:
        messages = bytes(values["messages"])
        # For bytes, `find` takes a fifth of the time of `in`.
        if len(fields.body) - len(messages) <= MAX_SETTING_BYTES and max(map(messages.lower().find, _NOT_PLAIN)) < 0:
            completion = _completion_limit(endpoint, values)
            return Estimate(-(-len(messages) // BYTES_PER_TOKEN), completion, 1, True, len(messages))
    prompt = max_prompt = 0
    is_whole = True
    for name, raw in values.items():
        if name in _SETTINGS and memoryview(raw).nbytes <= MAX_SETTING_BYTES:
            continue
        value = bytes(raw)
        attachments = split_attachments(value)
        prompt += -(-len(value) // BYTES_PER_TOKEN) + attachments.tokens
        max_prompt += len(value) + attachments.number * MAX_TOKENS_PER_ATTACHMENT
        is_whole = is_whole and not _refers_elsewhere(endpoint, name, attachments.text)
    largest = max_prompt if is_whole else None
    has_tools = not TOOL_FIELDS.isdisjoint(values) and has_provider_tools(values)
    if endpoint in _WITHOUT_COMPLETION:
        images = _count(values, "n") if endpoint in _IMAGES else 0
        characters = _length(values["input"]) if endpoint == "audio/speech" and "input" in values else 0
        return Estimate(prompt, 0, 1, False, largest, has_tools, images, characters, sound)
    choices = max(_count(values, "n"), _count(values, "best_of")) * _prompt_count(endpoint, values)
    limit = _completion_limit(endpoint, values)
    completion = None if limit is None else min(limit * choices, _LARGEST)
    return Estimate(prompt, completion, min(choices, _LARGEST), True, largest, has_tools)


def _completion_limit(endpoint: str, values: RawValues) -> int | None:
    """Returns the largest limit of a completion: it is not known which one the provider applies. Some take 0 for no limit."""
    largest = 0
    for name in _COMPLETION_LIMITS.get(endpoint, _ANY_LIMIT):
        if name in values and (limit := _whole(_decode(values[name]))) is not None and limit > largest:
            largest = limit
    return largest or None


def estimate_bounds(
    endpoint: str,
    fields: JsonObject | None,
    default_completion: int,
    context_window: int | None,
    sound: SoundLength = NO_SOUND,
) -> Bounds:
    """Returns what a request may use. ``default_completion`` is the number of tokens of a choice without a limit, for rates.

    ``context_window`` is that of the model, None where it is not known.
    """
    found = estimate(endpoint, fields, sound)
    money = found.most(context_window)
    prompt = money.prompt_tokens if found.max_prompt is None or found.has_provider_tools else found.prompt
    tokens = Usage(prompt, found.completion_or(default_completion))
    least = found.with_units(Usage(found.min_prompt, found.min_completion, seconds=sound.least))
    return Bounds(found, tokens, money, least)


def _refers_elsewhere(endpoint: str, name: str, value: bytes) -> bool:
    """Returns whether a field may add more to the prompt than what it has in it: by an id, an address, or an unknown way."""
    first = value[:1]
    if name not in _TEXTS:
        return first in (b'"', b"[", b"{")
    if first == b'"' or name == "tools":
        return False
    if (name == "prompt" and first == b"{") or len(value) > _MAX_SEARCHED_BYTES:  # the provider's template, or too much
        return True
    lower = value.lower()
    if b"\\u00" in lower and _ESCAPED_LETTER.search(lower):  # keys can be hidden by escapes
        return True
    for part in _REFERENCE_PARTS:
        if part in lower and _REFERENCE.search(lower):
            return True
    return endpoint == "responses" and b'"id"' in lower and _ITEM_ID.search(lower) is not None


def _prompt_count(endpoint: str, values: RawValues) -> int:
    """Returns the number of prompts: a text completion may have a list of them, strings or lists of tokens."""
    return _count_prompts(bytes(values["prompt"])) if endpoint == "completions" and "prompt" in values else 1


def _count_prompts(raw: bytes) -> int:
    """Returns the number of strings, or of lists of tokens, in a list. It is counted in the bytes: no value is decoded."""
    first = _FIRST_OF_LIST.match(raw)
    if first is None:
        return 1
    brackets = raw.count(b"[") - 1 if first[1] == b"[" else 0
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return max(1, brackets + raw.count(b'"') // 2)


def _length(raw: msgspec.Raw) -> int:
    """Returns the number of characters of a string; of anything else, and where it is invalid, the number of bytes."""
    try:
        return len(msgspec.json.decode(raw, type=str))
    except msgspec.DecodeError:
        return memoryview(raw).nbytes


def _count(values: RawValues, name: str) -> int:
    return max(1, _whole(_decode(values[name])) or 1) if name in values else 1


def _decode(raw: msgspec.Raw) -> Any:
    if memoryview(raw).nbytes > _MAX_NUMBER_BYTES:
        return None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:  # a number that is too large
        return None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return int(min(value, _LARGEST))
