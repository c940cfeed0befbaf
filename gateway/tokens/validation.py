"""Reads and writes the fields of a token as JSON has them. Pure.

There is one reader for each field. Each returns the value to store, and raises FieldError with the field's name and the rule.
"""

import contextlib
import math
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec

from gateway.core.clock import LATEST, from_iso, to_iso
from gateway.core.validators import is_printable, is_whole_number, one_of
from gateway.limits.config import LimitError, LimitSet, read_limits
from gateway.tokens.models import PreviousSecret, Role, TokenRecord

MAX_NAME_LENGTH = 200
MAX_MODELS = 200
MAX_METADATA_BYTES = 4096
_METADATA_DEPTH = 8
_JOINER = re.compile(r"(?<=[^\x00-\x7f\u200c\u200d])[\u200c\u200d](?=[^\x00-\x7f\u200c\u200d])")
"""What joins emoji, and letters of Persian and of Indian scripts. Elsewhere it would only make two names look alike."""
_HASH = re.compile(r"[0-9a-f]{64}")
_E_MAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")


class FieldError(ValueError):
    """A value is invalid for its field. ``rule`` says what it must be."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"`{field}` {rule}")
        self.field = field
        self.rule = rule


def name(value: Any) -> str:
    """Returns a token's name in its composed form (NFC), so that names which look alike are alike. Raises FieldError."""
    return stored_name(composed(value) if isinstance(value, str) else value)


def stored_name(value: Any) -> str:
    """Returns a name as it is stored: older ones may not be composed. Raises FieldError."""
    visible = _JOINER.sub("", value) if isinstance(value, str) else value
    if not is_printable(visible, MAX_NAME_LENGTH) or not visible.strip() or len(value) > MAX_NAME_LENGTH:
        raise FieldError("name", f"must be a printable string of 1 to {MAX_NAME_LENGTH} characters")
    return str(value)


def composed(text: str) -> str:
    """Returns the text in Unicode's composed form: keyboards and file systems write é as one character or as two."""
    return unicodedata.normalize("NFC", text)


def owner(value: Any) -> str | None:
    """Returns an e-mail address; None for null. Raises FieldError."""
    if value is None:
        return None
    if not isinstance(value, str) or not _E_MAIL.fullmatch(value) or not value.isprintable():
        raise FieldError("owner", "must be an e-mail address or null")
    return value


def role(value: Any) -> Role:
    """Returns a role; ``member`` for null. Raises FieldError."""
    if value is None:
        return Role.MEMBER
    try:
        return Role(one_of(*Role)(value))
    except ValueError as error:
        raise FieldError("role", str(error)) from None


def models(value: Any) -> tuple[str, ...] | None:
    """Returns a list of model names with wildcards; None for null, which allows every model. Raises FieldError."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_MODELS or not all(map(_is_model, value)):
        raise FieldError(
            "models", f"must be null or a list of at most {MAX_MODELS} model names, in which * stands for anything"
        )
    return tuple(value)


def _is_model(value: Any) -> bool:
    return is_printable(value, 256)


def limits(value: Any) -> LimitSet | None:
    """Returns a set of limits; None for null. Raises FieldError with the name of the limit that is invalid."""
    try:
        return read_limits(value)
    except LimitError as error:
        raise FieldError(error.field, error.rule) from None


def new_metadata(value: Any) -> dict[str, Any]:
    """Returns what somebody wants to keep with a token: small enough, and readable once it is written. Raises FieldError."""
    found = _metadata(value)
    if not _is_plain(found, _METADATA_DEPTH) or len(msgspec.json.encode(found)) > MAX_METADATA_BYTES:
        raise FieldError(
            "metadata",
            f"must be an object of at most {MAX_METADATA_BYTES} bytes and {_METADATA_DEPTH} levels; numbers up to 64 bits",
        )
    return found


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _string(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise FieldError(field, "must be a string")
    return value


def _optional_string(field: str, value: Any) -> str | None:
    return None if value is None else _string(field, value)


def _hash(field: str, value: Any) -> str:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise FieldError(field, "must be 64 hexadecimal digits in lower case")
    return value


def _time(field: str, value: Any) -> int:
    with contextlib.suppress(TypeError, ValueError):
        if 0 <= (seconds := from_iso(value)) <= LATEST:
            return seconds
    raise FieldError(field, "must be a time such as 2026-01-31T10:30:00Z")


def _optional_time(field: str, value: Any) -> int | None:
    return None if value is None else _time(field, value)


def _count(field: str, value: Any) -> int:
    if value is None:
        return 0
    if not is_whole_number(value, 0, 2**63 - 1):
        raise FieldError(field, "must be a whole number, 0 or above")
    return value


def _metadata(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise FieldError("metadata", "must be an object or null")
    return value or {}


_PREVIOUS = "previous_secrets"
_PREVIOUS_READERS: MappingProxyType[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "prefix": partial(_string, f"{_PREVIOUS}.prefix"),
        "hash": partial(_hash, f"{_PREVIOUS}.hash"),
        "rotated_at": partial(_time, f"{_PREVIOUS}.rotated_at"),
        "valid_until": partial(_time, f"{_PREVIOUS}.valid_until"),
        "revoked_at": partial(_optional_time, f"{_PREVIOUS}.revoked_at"),
        "last_used": partial(_optional_time, f"{_PREVIOUS}.last_used"),
        "last_used_from": partial(_optional_string, f"{_PREVIOUS}.last_used_from"),
        "usage_count": partial(_count, f"{_PREVIOUS}.usage_count"),
    }
)


def _previous_secrets(value: Any) -> tuple[PreviousSecret, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise FieldError(_PREVIOUS, "must be a list of objects")
    for item in value:
        if unknown := [name for name in item if name not in _PREVIOUS_READERS]:
            # Nothing is kept here that could be a misspelt end of a secret.
            raise FieldError(f"{_PREVIOUS}.{unknown[0]}", "is not known")
    return tuple(
        PreviousSecret(**{name: read(item.get(name)) for name, read in _PREVIOUS_READERS.items()}) for item in value
    )


READERS: MappingProxyType[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "id": partial(_string, "id"),
        "name": stored_name,
        "prefix": partial(_string, "prefix"),
        "hash": partial(_hash, "hash"),
        "owner": owner,
        "role": role,
        "parent_id": partial(_optional_string, "parent_id"),
        "created_at": partial(_time, "created_at"),
        "expires_at": partial(_optional_time, "expires_at"),
        "revoked_at": partial(_optional_time, "revoked_at"),
        "last_used": partial(_optional_time, "last_used"),
        "usage_count": partial(_count, "usage_count"),
        "models": models,
        "limits": limits,
        "metadata": _metadata,
        _PREVIOUS: _previous_secrets,
    }
)
"""Every field that the token file has, in the order in which it is written."""


def to_json(record: TokenRecord) -> dict[str, Any]:
    """Returns the same fields of a record, as JSON has them."""
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
        "models": None if record.models is None else list(record.models),
        "limits": record.limits and record.limits.as_json(),
        "metadata": record.metadata,
        _PREVIOUS: [_previous_as_json(previous) for previous in record.previous_secrets],
    }


def _previous_as_json(previous: PreviousSecret) -> dict[str, Any]:
    return {
        "prefix": previous.prefix,
        "hash": previous.hash,
        "rotated_at": to_iso(previous.rotated_at),
        "valid_until": to_iso(previous.valid_until),
        "revoked_at": to_iso(previous.revoked_at),
        "last_used": to_iso(previous.last_used),
        "last_used_from": previous.last_used_from,
        "usage_count": previous.usage_count,
    }
