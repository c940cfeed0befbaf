"""Which headers of a client a provider gets. It is the only filter of headers between clients and providers."""

from collections.abc import Mapping
from functools import lru_cache

_NAMES = frozenset(
    {
        "accept", "content-type", "user-agent", "openai-beta", "idempotency-key", "x-client-request-id", "range",
        "if-none-match", "if-modified-since", "traceparent", "tracestate",
    }
)  # fmt: skip
_PREFIXES = ("x-stainless-", "anthropic-")


def forwardable(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the headers that providers get.

    They are listed, not those that are held back: a new kind of credential header must not pass because nobody had heard of
    it.
    """
    return {name: value for name, value in headers.items() if _is_forwardable(name)}


@lru_cache(maxsize=1024)
def _is_forwardable(name: str) -> bool:
    lower = name.lower()
    return lower in _NAMES or lower.startswith(_PREFIXES)
