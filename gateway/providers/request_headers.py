"""Selects the headers of a client that providers, and so their upstreams, may see. Pure.

This is the only filter of request headers, and it is a list of what is allowed: a new kind of credential header must not reach
an upstream because nobody had heard of it.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from multidict import istr

_ALLOWED = frozenset(
    {
        "accept", "user-agent", "openai-beta", "idempotency-key", "x-client-request-id", "range",
        "if-none-match", "if-modified-since", "traceparent", "tracestate",
    }
)  # fmt: skip
_IDEMPOTENCY_KEY = istr("idempotency-key")
_ALLOWED_PREFIXES = ("x-stainless-", "anthropic-")


def forwarded_headers(
    headers: Mapping[str, str], token_id: str | None = None, content_type: str | None = None
) -> dict[str, str]:
    """Returns those of a client's headers that are forwarded, under the names that the client used.

    For the token with this id, ``Idempotency-Key`` is replaced by a hash of the id and the key: an upstream that knows all tokens
    by one key of its own would otherwise answer one token with the response that it has for another. ``content_type`` is what
    the gateway has read the body as, None where there is no body: the upstream must not read it as something else, because of
    a charset or of a second header.
    """
    found = {name: value for name, value in headers.items() if _is_forwarded(name)}
    if token_id is not None and _IDEMPOTENCY_KEY in headers:
        for name, value in found.items():
            if name.lower() == "idempotency-key":
                found[name] = _scoped_key(token_id, value)
    if content_type is not None:
        found["Content-Type"] = content_type
    return found


def _scoped_key(token_id: str, key: str) -> str:
    """Returns 64 hexadecimal digits: always the same for one token and key, and others for any other token."""
    return hashlib.sha256(f"{token_id}\0{key}".encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(maxsize=1024)
def _is_forwarded(name: str) -> bool:
    lower = name.lower()
    return lower in _ALLOWED or lower.startswith(_ALLOWED_PREFIXES)
