"""Tokens to test with: their JSON form, their records, and the file that holds them."""

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from gateway.audit.hash_chain import Actor, AuditEvent
from gateway.tokens import operations, secret
from gateway.tokens.changes import CreatedToken, TokenSpec
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import RecordChange, TokenRecord
from gateway.tokens.store import AuditSink
from gateway.tokens.stores import json_format
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore

T = TypeVar("T")

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


class MemoryAuditLog:
    """An audit log that is easy to look into."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    async def append(self, entries: Sequence[AuditEvent]) -> None:
        self.events += entries

    def summary(self) -> list[tuple[str, str]]:
        """The action and the name of the token of each event."""
        return [(event.action, event.token) for event in self.events]


BY = Actor("command line", "tester")


def store_at(path: Path, clock: Callable[[], float], audit: AuditSink | None = None) -> JsonTokenStore:
    """A store in that token file."""
    return JsonTokenStore(JsonTokenFile(path), audit or MemoryAuditLog(), clock)


class TokenEditor:
    """Changes a token file as another process does: blocking, with an event loop of its own for each change."""

    def __init__(self, path: Path, clock: Callable[[], float], audit: AuditSink | None = None) -> None:
        self._path = path
        self._clock = clock
        self._audit = audit or MemoryAuditLog()

    def tokens(self) -> TokenHierarchy:
        return self._run(operations.read_or_empty(self._store()))

    def create(self, by: Actor, spec: TokenSpec) -> CreatedToken:
        return self._run(operations.create(self._store(), by, spec))

    def revoke(self, by: Actor, reference: str) -> RecordChange:
        return self._run(operations.revoke(self._store(), by, reference))

    def delete(self, by: Actor, reference: str) -> None:
        self._run(operations.delete(self._store(), by, reference))

    def rotate(self, by: Actor, reference: str, grace: int) -> CreatedToken:
        return self._run(operations.rotate(self._store(), by, reference, grace))

    def import_file(self, by: Actor, data: bytes) -> tuple[TokenRecord, ...]:
        return self._run(operations.import_records(self._store(), by, json_format.decode(data).tokens))

    def _store(self) -> JsonTokenStore:
        return store_at(self._path, self._clock, self._audit)

    def _run(self, operation: Coroutine[Any, Any, T]) -> T:
        """In a thread, because the test's own loop may be running."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, operation).result()


def entry(text: str = "sk-first-secret-of-many-made-up", **fields: Any) -> dict[str, Any]:
    """A token as the file has it, for the secret ``text``."""
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
    return json_format.decode(content(entry(text, **fields))).tokens[0]


def freegpt(text: str = "sk-old-secret-that-freegpt-made", **fields: Any) -> dict[str, Any]:
    """A token in FreeGPT's form, for ``json.dumps``."""
    plain = {"name": "old", "created_at": "2025-11-26T10:30:00.123456", "last_used": None, "active": True}
    return {text: {**plain, **fields}}


def names(path: Path) -> list[str]:
    """The names in the token file, read anew."""
    return [token.name for token in json_format.decode(path.read_bytes()).tokens]


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder that every user can reach, which those of pytest are not, and none but root can write."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        yield Path(name)
        Path(name).chmod(0o755)


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
