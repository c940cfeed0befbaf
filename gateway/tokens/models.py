"""Describes what is stored of a token, and what follows from one record. Values only."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from gateway.core import wildcards
from gateway.limits.config import LimitSet


class Role(StrEnum):
    """What a token may do, from the most to the least; ``gateway.auth.roles`` has the details."""

    ADMIN = "admin"
    MEMBER = "member"
    SERVICE = "service"

    __hash__ = str.__hash__  # that of Enum is a function in Python, called for each request

    @property
    def rank(self) -> int:
        """A number that is higher for a role that may do more."""
        return -list(Role).index(self)


class Status(StrEnum):
    """Whether a token or a secret is valid."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class PreviousSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that a rotation has replaced, which goes on working until ``valid_until``.

    Its uses since then tell a person when it is safe to end it. Times are whole seconds since the epoch, UTC.
    """

    prefix: str
    hash: str
    rotated_at: int
    valid_until: int
    revoked_at: int | None = None
    last_used: int | None = None
    last_used_from: str | None = None
    usage_count: int = 0

    def status(self, now: float) -> Status:
        """Returns its own status, as if its token were active."""
        return _status(self.revoked_at, self.valid_until, now)


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
    limits: LimitSet | None = None
    metadata: Mapping[str, Any] = {}
    previous_secrets: tuple[PreviousSecret, ...] = ()
    """Oldest first."""
    unknown: Mapping[str, Any] = {}
    """Fields of a newer version or of somebody's own, which are stored again."""

    def status(self, now: float) -> Status:
        """Returns its own status; ``TokenHierarchy.status`` counts the parents in."""
        return _status(self.revoked_at, self.expires_at, now)


class UseKey(NamedTuple):
    """The token that was used. ``previous_hash`` is set where the secret was one that a rotation has replaced."""

    token_id: str
    previous_hash: str | None = None


class SecretMatch(NamedTuple):
    """The token that a secret belongs to. ``previous`` is set where a rotation has replaced that secret."""

    record: TokenRecord
    previous: PreviousSecret | None


class RecordChange(NamedTuple):
    """One record before and after. ``before`` is None for a new one, ``after`` for a deleted one; never both."""

    action: str
    before: TokenRecord | None
    after: TokenRecord | None

    @property
    def record(self) -> TokenRecord:
        """The record as it is now, or was last. Raises ValueError where there is neither."""
        record = self.after or self.before
        if record is None:
            raise ValueError("a change of no record")
        return record


def _status(revoked_at: int | None, expires_at: int | None, now: float) -> Status:
    """Revoked is for ever; a token is expired from the very second of its expiry on."""
    if revoked_at is not None:
        return Status.REVOKED
    if expires_at is not None and now >= expires_at:
        return Status.EXPIRED
    return Status.ACTIVE


def allows_model(patterns: tuple[str, ...] | None, model: str) -> bool:
    """Whether a list of names with ``*`` wildcards lets a model through. None allows every model, an empty list none."""
    return patterns is None or any(wildcards.matches(pattern, model) for pattern in patterns)
