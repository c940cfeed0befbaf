"""Estimates how many tokens a request may use, before it is sent. Pure. It raises nothing: the provider refuses invalid requests.

A prompt is estimated by its size: with today's tokenizers, text has about four bytes to a token. Images and audio are sent as
base64, which has many more bytes to a token.
"""

import re
from typing import Any, NamedTuple

from gateway.core.errors import BadRequest
from gateway.core.json_body import JsonObject

BYTES_PER_TOKEN = 4
BYTES_PER_ATTACHED_TOKEN = 256
TOKENS_PER_ATTACHMENT = 1000
_ATTACHMENT = re.compile(rb'(?:base64,|"data"\s*:\s*")[A-Za-z0-9+/=]{1024,}')
_PROMPTS = frozenset(
    {"messages", "input", "prompt", "instructions", "system", "tools", "functions", "query", "documents"}
)
_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
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
    prompt = sum([_estimate_tokens(fields.raw(name) or b"") for name in fields if name in _PROMPTS])
    if endpoint in _WITHOUT_COMPLETION:
        return Estimate(prompt, 0, has_completion=False)
    choices = max(_count(fields, "n"), _count(fields, "best_of")) * _prompt_count(endpoint, fields)
    # The largest limit counts, because it is not known which one the provider applies.
    bounds = [bound for name in _BOUNDS if name in fields and (bound := _whole(_value(fields, name))) is not None]
    completion = min(max(bounds) * choices, _LARGEST) if bounds else None
    return Estimate(prompt, completion, min(choices, _LARGEST))


def _prompt_count(endpoint: str, fields: JsonObject) -> int:
    """Returns the number of prompts: a text completion may have a list of them, strings or lists of tokens."""
    prompts = _value(fields, "prompt") if endpoint == "completions" and "prompt" in fields else None
    return len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1


def _estimate_tokens(raw: bytes) -> int:
    attached = 0
    if len(raw) > 4096:
        for found in _ATTACHMENT.finditer(raw):
            size = found.end() - found.start()
            attached += max(TOKENS_PER_ATTACHMENT, size // BYTES_PER_ATTACHED_TOKEN) - size // BYTES_PER_TOKEN
    return -(-len(raw) // BYTES_PER_TOKEN) + attached


def _count(fields: JsonObject, name: str) -> int:
    return max(1, _whole(_value(fields, name)) or 1) if name in fields else 1


def _value(fields: JsonObject, name: str) -> Any:
    try:
        return fields[name]
    except BadRequest:  # a number that is too large for JSON
        return None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return int(min(value, _LARGEST))
