"""What is known of a token, and what follows from it. Values only."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec


class Role(StrEnum):
    ADMIN = "admin"
    MEMBER = "member"
    SERVICE = "service"


class Status(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One token. Times are whole seconds since the epoch, UTC."""

    id: str
    name: str
    prefix: str
    hash: str
    created_at: int
    owner: str | None = None
    role: Role = Role.MEMBER
    parent_id: str | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used: int | None = None
    usage_count: int = 0
    models: tuple[str, ...] | None = None
    limits: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = {}
    unknown: Mapping[str, Any] = {}
    """Fields of a newer version or of somebody's own: kept when the file is written again."""

    def status(self, now: float) -> Status:
        """Revoked is for ever; expiry holds from its very second."""
        if self.revoked_at is not None:
            return Status.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return Status.EXPIRED
        return Status.ACTIVE


def allows_model(patterns: tuple[str, ...] | None, model: str) -> bool:
    """Whether an allow-list with ``*`` globs lets a model through. None allows all, an empty list nothing."""
    return patterns is None or any(_fits(pattern, model) for pattern in patterns)


def _fits(pattern: str, text: str) -> bool:
    """Only the star is special: names of models hold brackets and question marks. Takes linear time, unlike a regex."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
