"""Selects and sorts the tokens of ``list``. Pure."""

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from gateway.core.clock import LATEST
from gateway.tokens import validation
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Status, TokenRecord

_ORDERS: Mapping[str, Callable[[TokenRecord], Any]] = MappingProxyType(
    {
        "created": lambda record: -record.created_at,
        "last-used": lambda record: -(-1 if record.last_used is None else record.last_used),
        "name": lambda record: record.name.casefold(),
        "expires": lambda record: LATEST + 1 if record.expires_at is None else record.expires_at,
    }
)


def select(tokens: TokenHierarchy, arguments: argparse.Namespace, now: float) -> list[TokenRecord]:
    """Returns the tokens that the arguments ask for: in the order of the file, unless they name another."""
    status = Status(arguments.status) if arguments.status else None
    searched = validation.composed(arguments.search or "").casefold().removesuffix("...")
    found = [
        record
        for record in tokens.records
        if arguments.owner in (None, record.owner)
        and (status is None or tokens.status(record, now) is status)
        and any(searched in (text or "").casefold() for text in (record.name, record.owner, record.id, record.prefix))
    ]
    if arguments.sort is not None:
        found.sort(key=_ORDERS[arguments.sort])
    return found[: arguments.limit]
