"""A token's fields as they stand in JSON: one reader each. Each raises FieldError with the field's name and the rule."""

import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from gateway.clock import LATEST, from_iso, to_iso
from gateway.tokens.record import Role, TokenRecord

MAX_NAME_LENGTH = 200
_HASH = re.compile(r"[0-9a-f]{64}")
_E_MAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")


class FieldError(ValueError):
    """A value that does not fit its field."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"`{field}` {rule}")
        self.field = field
        self.rule = rule


def name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME_LENGTH or not value.isprintable():
        raise FieldError("name", f"must be a printable text of 1 to {MAX_NAME_LENGTH} characters")
    return value


def owner(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _E_MAIL.fullmatch(value) or not value.isprintable():
        raise FieldError("owner", "must be an e-mail address or null")
    return value


def role(value: Any) -> Role:
    if value is None:
        return Role.MEMBER
    try:
        return Role(value)
    except ValueError:
        raise FieldError("role", f"must be one of {', '.join(Role)}") from None


def models(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) and item and item.isprintable() for item in value):
        raise FieldError("models", "must be null or a list of model names, in which * stands for anything")
    return tuple(value)


def _text(field: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            raise FieldError(field, "must be a text")
        return value

    return read


def _optional_text(field: str) -> Callable[[Any], str | None]:
    read = _text(field)
    return lambda value: None if value is None else read(value)


def _hash(value: Any) -> str:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise FieldError("hash", "must be 64 hexadecimal digits in lower case")
    return value


def _time(field: str) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        try:
            seconds = from_iso(value)
        except (TypeError, ValueError, OverflowError):
            seconds = -1
        if not 0 <= seconds <= LATEST:
            raise FieldError(field, "must be a time such as 2026-01-31T10:30:00Z")
        return seconds

    return read


def _optional_time(field: str) -> Callable[[Any], int | None]:
    read = _time(field)
    return lambda value: None if value is None else read(value)


def _count(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise FieldError("usage_count", "must be a whole number, 0 or above")
    return value


def _optional_object(field: str) -> Callable[[Any], dict[str, Any] | None]:
    def read(value: Any) -> dict[str, Any] | None:
        if value is not None and not isinstance(value, dict):
            raise FieldError(field, "must be an object or null")
        return value

    return read


READERS: MappingProxyType[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "id": _text("id"),
        "name": name,
        "prefix": _text("prefix"),
        "hash": _hash,
        "owner": owner,
        "role": role,
        "parent_id": _optional_text("parent_id"),
        "created_at": _time("created_at"),
        "expires_at": _optional_time("expires_at"),
        "revoked_at": _optional_time("revoked_at"),
        "last_used": _optional_time("last_used"),
        "usage_count": _count,
        "models": models,
        "limits": _optional_object("limits"),
        "metadata": lambda value: _optional_object("metadata")(value) or {},
    }
)
"""Every field of the file form, in the order in which it is written."""


def as_json(record: TokenRecord) -> dict[str, Any]:
    """The same fields of a record, as JSON has them."""
    return {
        "id": record.id,
        "name": record.name,
        "prefix": record.prefix,
        "hash": record.hash,
        "owner": record.owner,
        "role": record.role.value,
        "parent_id": record.parent_id,
        "created_at": to_iso(record.created_at),
        "expires_at": to_iso(record.expires_at),
        "revoked_at": to_iso(record.revoked_at),
        "last_used": to_iso(record.last_used),
        "usage_count": record.usage_count,
        "models": record.models,
        "limits": record.limits,
        "metadata": record.metadata,
    }
