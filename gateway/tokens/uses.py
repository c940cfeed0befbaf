"""Merges uses of tokens and adds them to records. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from gateway.tokens.models import PreviousSecret, TokenRecord, UseKey


class Use(NamedTuple):
    """How often a token was used since the last write. ``at`` is the last time, in whole seconds since the epoch.

    ``address`` is where the last use came from; it is only kept for replaced secrets.
    """

    times: int
    at: int
    address: str | None = None

    def and_then(self, later: "Use") -> "Use":
        """Returns both together; of two uses in the same second the later one counts as the last."""
        newest = later if later.at >= self.at else self
        return Use(self.times + later.times, newest.at, newest.address)


def used_records(find_by_id: Callable[[str], TokenRecord | None], uses: Mapping[UseKey, Use]) -> dict[str, TokenRecord]:
    """Returns the records that were used, with the uses added, by their ids. A token that was deleted is passed over."""
    known = {key.token_id: find_by_id(key.token_id) for key in uses}
    found = [record for record in known.values() if record is not None]
    return {record.id: record for record in add_uses(found, uses)}


def add_uses(records: Sequence[TokenRecord], uses: Mapping[UseKey, Use]) -> tuple[TokenRecord, ...]:
    """Returns the records with the uses added. A token that was deleted meanwhile is passed over."""
    by_token: dict[str, dict[str | None, Use]] = {}
    for key, use in uses.items():
        by_token.setdefault(key.token_id, {})[key.previous_hash] = use
    return tuple(_add_to_record(record, by_token[record.id]) if record.id in by_token else record for record in records)


def _add_to_record(record: TokenRecord, uses: Mapping[str | None, Use]) -> TokenRecord:
    """``uses`` by the hash of the replaced secret that was used, None for the present one."""
    previous = tuple(
        _add_to_secret(old, uses[old.hash]) if old.hash in uses else old for old in record.previous_secrets
    )
    return msgspec.structs.replace(
        record,
        last_used=max(record.last_used or 0, *(use.at for use in uses.values())),
        usage_count=record.usage_count + sum(use.times for use in uses.values()),
        previous_secrets=previous,
    )


def _add_to_secret(previous: PreviousSecret, use: Use) -> PreviousSecret:
    count = previous.usage_count + use.times
    if previous.last_used is not None and previous.last_used > use.at:
        return msgspec.structs.replace(previous, usage_count=count)
    return msgspec.structs.replace(previous, usage_count=count, last_used=use.at, last_used_from=use.address)
