"""Turns the options of ``create`` and ``update`` into fields of a token."""

import argparse
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from gateway.core.validators import parse_whole_number
from gateway.limits.config import LimitSet, read_limits
from gateway.tokens import expiry, validation
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import Role, TokenRecord

NONE = "none"
"""What takes a limit or an owner away."""
_ALL = "all"
_COUNTS = ("rpm", "tpm", "max_parallel")


def new_token(arguments: argparse.Namespace, parent_id: str | None, now: float) -> TokenSpec:
    """Returns what a new token shall be. Raises ValueError."""
    given = _given(arguments, now)
    return TokenSpec(
        name=validation.name(arguments.name),
        owner=given.get("owner", UNSET),
        role=given.get("role", UNSET),
        parent_id=parent_id,
        expires_at=given.get("expires_at", UNSET),
        models=given.get("models", UNSET),
        limits=_limits(arguments, {}) if _has_limits(arguments) else UNSET,
        prefix=UNSET if arguments.prefix is None else arguments.prefix,
    )


def changed_fields(arguments: argparse.Namespace, record: TokenRecord, now: float) -> dict[str, Any]:
    """Returns the fields of a token that change. Limits that are not named stay. Raises ValueError."""
    fields = _given(arguments, now)
    if arguments.name is not None:
        fields["name"] = validation.name(arguments.name)
    if _has_limits(arguments):
        fields["limits"] = _limits(arguments, record.limits.as_json() if record.limits else {})
    return fields


def _given(arguments: argparse.Namespace, now: float) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if arguments.owner is not None:
        fields["owner"] = validation.owner(None if arguments.owner == NONE else arguments.owner)
    if arguments.role is not None:
        fields["role"] = Role(arguments.role)
    if arguments.expires is not None:
        fields["expires_at"] = expiry.expiry(arguments.expires, now)
    if arguments.models is not None:
        names = [part.strip() for part in arguments.models.split(",")]
        fields["models"] = validation.models(None if names == [_ALL] else names)
    return fields


def _has_limits(arguments: argparse.Namespace) -> bool:
    return any(getattr(arguments, name) is not None for name in (*_COUNTS, "budget"))


def _limits(arguments: argparse.Namespace, before: Mapping[str, Any]) -> LimitSet | None:
    limits = dict(before)
    for name in (*_COUNTS, "budget"):
        text = getattr(arguments, name)
        if text is None:
            continue
        if text == NONE:
            limits.pop(name, None)
        elif name == "budget":
            limits[name] = text
        elif (number := parse_whole_number(text, 0, 9_999_999_999)) is not None:
            limits[name] = number
        else:
            raise ValueError(f"--{name.replace('_', '-')} must be a whole number such as 60, not {text!r}")
    return read_limits(limits)
