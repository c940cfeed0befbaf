"""How much a request may use, before it is known. Pure, and never an error: what makes no sense is the upstream's to refuse.

A prompt is guessed by its size: four bytes a token is what texts come to with today's tokenizers. Pictures and sound come
as base64, of which a token takes many more bytes.
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
    """Model tokens. ``completion`` is what the request allows for all its answers, or None where it names no bound."""

    prompt: int
    completion: int | None
    answers: int = 1
    has_completion: bool = True

    def completion_or(self, default: int) -> int:
        """``default`` for each answer."""
        return min(default * self.answers, _LARGEST) if self.completion is None else self.completion

    @property
    def min_prompt(self) -> int:
        """What the prompt comes to even if it were long words in much JSON."""
        return -(-self.prompt // 8)

    @property
    def min_completion(self) -> int:
        """What has to be there: all that the request allows, but one token for each answer if it does not say."""
        return self.answers if self.completion is None else self.completion


NOTHING_ESTIMATED = Estimate(0, 0, has_completion=False)


def estimate(endpoint: str, fields: JsonObject | None) -> Estimate:
    """Of a request to ``endpoint``, such as ``chat/completions``; without JSON nothing is known."""
    if fields is None:
        return NOTHING_ESTIMATED
    prompt = sum([_tokens_in(fields.raw(name) or b"") for name in fields if name in _PROMPTS])
    if endpoint in _WITHOUT_COMPLETION:
        return Estimate(prompt, 0, has_completion=False)
    answers = max(_count(fields, "n"), _count(fields, "best_of")) * _prompts(endpoint, fields)
    # The largest: which of them an upstream keeps to is its own affair.
    bounds = [bound for name in _BOUNDS if name in fields and (bound := _whole(_value(fields, name))) is not None]
    completion = min(max(bounds) * answers, _LARGEST) if bounds else None
    return Estimate(prompt, completion, min(answers, _LARGEST))


def _prompts(endpoint: str, fields: JsonObject) -> int:
    """A text completion answers each of a list of prompts: texts, or lists of tokens."""
    prompts = _value(fields, "prompt") if endpoint == "completions" and "prompt" in fields else None
    return len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1


def _tokens_in(raw: bytes) -> int:
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
    except BadRequest:  # a number that no machine can hold
        return None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return int(min(value, _LARGEST))
