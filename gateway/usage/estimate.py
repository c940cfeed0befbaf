"""How much a request may use, before it is known. Pure.

A prompt is guessed by its size: four bytes a token is what texts come to with today's tokenizers. Pictures and sound come
as long base64 and count as much as a large picture does.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.schema import JsonObject

BYTES_PER_TOKEN = 4
TOKENS_PER_ATTACHMENT = 1000
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=-]{1024,}")
_PROMPTS = frozenset(
    {"messages", "input", "prompt", "instructions", "system", "tools", "functions", "query", "documents"}
)
_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_WITHOUT_COMPLETION = frozenset({"embeddings", "moderations", "rerank"})
_LARGEST = 10**9


class Estimate(NamedTuple):
    """Model tokens. ``completion`` is what the request allows, or None where it names no bound."""

    prompt: int
    completion: int | None

    def completion_or(self, default: int) -> int:
        return default if self.completion is None else self.completion

    @property
    def least_prompt(self) -> int:
        """What the prompt comes to even if it were long words in much JSON."""
        return -(-self.prompt // 8)

    @property
    def least_completion(self) -> int:
        """What has to be there: all that the request allows, but one token if it does not say."""
        return 1 if self.completion is None else self.completion


def estimate(endpoint: str, fields: JsonObject | None) -> Estimate:
    """Of a request to ``endpoint``, such as ``chat/completions``; without JSON nothing is known."""
    if fields is None:
        return Estimate(0, 0)
    prompt = prompt_tokens(fields)
    return Estimate(prompt, 0 if endpoint in _WITHOUT_COMPLETION else completion_bound(fields))


def prompt_tokens(fields: JsonObject) -> int:
    return sum([_tokens_in(fields.raw(name) or b"") for name in fields if name in _PROMPTS])


def completion_bound(fields: Mapping[str, Any]) -> int | None:
    """``max_tokens`` or its newer names, for each of the answers that are asked for."""
    for name in _BOUNDS:
        if name in fields and (bound := _whole(fields[name])) is not None:
            answers = max(_whole(fields.get("n")) or 1, _whole(fields.get("best_of")) or 1)
            return min(bound * answers, _LARGEST)
    return None


def _tokens_in(raw: bytes) -> int:
    attachments = 0
    if len(raw) > 4096:
        raw, attachments = _BASE64.subn(b"", raw)
    return -(-len(raw) // BYTES_PER_TOKEN) + attachments * TOKENS_PER_ATTACHMENT


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _LARGEST else None
