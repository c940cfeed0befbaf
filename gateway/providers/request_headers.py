"""Selects the headers of a client that providers, and so their upstreams, may see. Pure.

This is the only filter of request headers, and it is a list of what is allowed: a new kind of credential header must not reach
an upstream because nobody had heard of it.
"""

from collections.abc import Mapping
from functools import lru_cache

_ALLOWED = frozenset(
    {
        "accept", "content-type", "user-agent", "openai-beta", "idempotency-key", "x-client-request-id", "range",
        "if-none-match", "if-modified-since", "traceparent", "tracestate",
    }
)  # fmt: skip
_ALLOWED_PREFIXES = ("x-stainless-", "anthropic-")


def forwarded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns those of a client's headers that are forwarded, under the names that the client used."""
    return {name: value for name, value in headers.items() if _is_forwarded(name)}


@lru_cache(maxsize=1024)
def _is_forwarded(name: str) -> bool:
    lower = name.lower()
    return lower in _ALLOWED or lower.startswith(_ALLOWED_PREFIXES)
