"""Tokens to test with: their JSON form, their records, and the file that holds them."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.audit.hash_chain import Actor, AuditEvent
from gateway.tokens import secret
from gateway.tokens.models import TokenRecord
from gateway.tokens.service import TokenService
from gateway.tokens.stores import json_format as codec
from gateway.tokens.stores.json_file import JsonTokenFile

NOW = 1_800_000_000
NOBODY = 65534
KEY = "sk-0QmZpYBuzB3AzTnTjVYQ1hVdJcQ6W9eVbXoGmC2sR5t2nEE06"
LIVE_KEY = "sk_live_7vKd2LwXhR9sTqYcN4bMfGj6ZaPzEuU1oiHkVtDxWrB2AbjMP"
STRANGE_KEY = "sk-3BnHs8KqWvRx5LtYdFzGcMj2PaTeUoIbNk6VhXwQyZr3MAdTd"
"""Secrets of our form with the right checksum; nobody holds the last one."""


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class MemoryLog:
    """An audit log that is easy to look into."""

    def __init__(self) -> None:
        self.entries: list[AuditEvent] = []

    def append(self, entries: Sequence[AuditEvent]) -> None:
        self.entries += entries


BY = Actor("command line", "tester")


def service_at(path: Path, clock: Callable[[], float], log: MemoryLog | None = None) -> TokenService:
    """The writer of that token file."""
    return TokenService(JsonTokenFile(path), log or MemoryLog(), clock)


def entry(text: str = "sk-first-secret-of-many-made-up", **fields: Any) -> dict[str, Any]:
    """A token as it stands in the file, for the secret ``text``."""
    digest = secret.digest(text)
    return {
        "id": f"tok_{digest[:12]}",
        "name": "application",
        "prefix": secret.display_prefix(text),
        "hash": digest,
        "created_at": "2025-11-26T10:30:00Z",
        **fields,
    }


def content(*entries: dict[str, Any], **top: Any) -> bytes:
    """A whole token file."""
    return json.dumps({"version": 1, "tokens": list(entries), **top}).encode()


def record(text: str = "sk-first-secret-of-many-made-up", **fields: Any) -> TokenRecord:
    return codec.decode(content(entry(text, **fields))).tokens[0]


def freegpt(text: str = "sk-old-secret-that-freegpt-made", **fields: Any) -> dict[str, Any]:
    """A token in FreeGPT's form, for ``json.dumps``."""
    plain = {"name": "old", "created_at": "2025-11-26T10:30:00.123456", "last_used": None, "active": True}
    return {text: {**plain, **fields}}


def names(path: Path) -> list[str]:
    """The names in the token file, read anew."""
    return [token.name for token in codec.decode(path.read_bytes()).tokens]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Permissions mean nothing to root: give that up for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
