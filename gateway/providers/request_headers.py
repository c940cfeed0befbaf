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
IDEMPOTENCY_KEY = istr("idempotency-key")
_ALLOWED_PREFIXES = ("x-stainless-", "anthropic-")


def forwarded_headers(headers: Mapping[str, str], content_type: str | None = None) -> dict[str, str]:
    """Returns those of a client's headers that are forwarded, under the names that the client used.

    ``content_type`` is what the gateway has read the body as, None where there is no body: the upstream must not read it as
    something else, because of a charset or of a second header.
    """
    found = {name: value for name, value in headers.items() if _is_forwarded(name)}
    if content_type is not None:
        found["Content-Type"] = content_type
    return found


def scope_idempotency_key(headers: Mapping[str, str], token_id: str) -> dict[str, str]:
    """Returns the headers with a hash of the token's id and the key as ``Idempotency-Key``.

    An upstream knows all tokens by one key of its own, and would otherwise answer one token with the response that it has for
    another.
    """
    scoped = {name: _scoped_key(token_id, key) for name, key in headers.items() if name.lower() == "idempotency-key"}
    return {**headers, **scoped}


def _scoped_key(token_id: str, key: str) -> str:
    """Returns 64 hexadecimal digits: always the same for one token and key, and others for any other token."""
    return hashlib.sha256(f"{token_id}\0{key}".encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(maxsize=1024)
def _is_forwarded(name: str) -> bool:
    lower = name.lower()
    return lower in _ALLOWED or lower.startswith(_ALLOWED_PREFIXES)
