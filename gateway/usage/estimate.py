"""Estimates how many tokens a request may use, before it is sent. Pure. It raises nothing: the provider refuses invalid requests.

A prompt is estimated by its size: with today's tokenizers, text has about four bytes to a token. Images and audio are sent as
base64, which has many more bytes to a token.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from gateway.core.json_body import JsonObject
from gateway.usage.models import Usage

RawValues: TypeAlias = Mapping[str, msgspec.Raw]

BYTES_PER_TOKEN = 4
BYTES_PER_ATTACHED_TOKEN = 256
TOKENS_PER_ATTACHMENT = 1000
_ATTACHMENT = re.compile(rb'(?:base64,|"data"\s*:\s*")[A-Za-z0-9+/=]{1024,}')
_PROMPTS = frozenset(
    {"messages", "input", "prompt", "instructions", "system", "tools", "functions", "query", "documents"}
)
_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_FIRST_OF_LIST = re.compile(rb'\[\s*(["\[])')
_MAX_NUMBER_BYTES = 32
_WITHOUT_COMPLETION = frozenset({"embeddings", "moderations", "rerank"})
_LARGEST = 10**9


class Estimate(NamedTuple):
    """Numbers of language-model tokens.

    ``completion`` is the limit that the request sets for all its choices together, None without one. ``choices`` is the number of
    completions that it asks for.
    """

    prompt: int
    completion: int | None
    choices: int = 1
    has_completion: bool = True

    def completion_or(self, default: int) -> int:
        """Returns the limit of the completion; without one, ``default`` tokens for each choice."""
        return min(default * self.choices, _LARGEST) if self.completion is None else self.completion

    @property
    def min_prompt(self) -> int:
        """The number of prompt tokens even if the prompt has long words and much JSON syntax."""
        return -(-self.prompt // 8)

    @property
    def min_completion(self) -> int:
        """The completion tokens that must be affordable: the limit, or one token for each choice without a limit."""
        return self.choices if self.completion is None else self.completion


NOTHING_ESTIMATED = Estimate(0, 0, has_completion=False)


def estimate(endpoint: str, fields: JsonObject | None) -> Estimate:
    """Returns the estimate for a request to ``endpoint``, such as ``chat/completions``. Without a JSON body it is 0."""
    if fields is None:
        return NOTHING_ESTIMATED
    values = fields.raw_values
    prompt = sum([_estimate_tokens(bytes(raw)) for name, raw in values.items() if name in _PROMPTS])
    if endpoint in _WITHOUT_COMPLETION:
        return Estimate(prompt, 0, has_completion=False)
    choices = max(_count(values, "n"), _count(values, "best_of")) * _prompt_count(endpoint, values)
    # The largest limit counts, because it is not known which one the provider applies.
    bounds = [bound for name in _BOUNDS if name in values and (bound := _whole(_decode(values[name]))) is not None]
    completion = min(max(bounds) * choices, _LARGEST) if bounds else None
    return Estimate(prompt, completion, min(choices, _LARGEST))


def estimate_usage(endpoint: str, fields: JsonObject | None, default_completion: int) -> tuple[Estimate, Usage, Usage]:
    """Returns the estimate, what the request may use, and the least that must be affordable.

    ``default_completion`` is the number of tokens of a choice without a limit.
    """
    found = estimate(endpoint, fields)
    most = Usage(found.prompt, found.completion_or(default_completion))
    return found, most, Usage(found.min_prompt, found.min_completion)


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


def _estimate_tokens(raw: bytes) -> int:
    attached = 0
    if len(raw) > 4096:
        for found in _ATTACHMENT.finditer(raw):
            size = found.end() - found.start()
            attached += max(TOKENS_PER_ATTACHMENT, size // BYTES_PER_ATTACHED_TOKEN) - size // BYTES_PER_TOKEN
    return -(-len(raw) // BYTES_PER_TOKEN) + attached


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
