"""Makes the rows of the ledger's tables: one tuple for each entry, and one for each hour, token, owner and model of a batch."""

from collections.abc import Iterable

from gateway.usage.aggregation import bounded, encodable
from gateway.usage.models import HOUR_SECONDS, LedgerEntry

EntryRow = tuple[str, int, str, str | None, str | None, str, str, int, int, int, int, int, int, int, int, int, int,
                 int | None, int, int]  # fmt: skip
HourRow = tuple[str | int, ...]
"""The key of an hour, as ``aggregation.hour_key`` has it, and the fields of ``UsageTotals``."""

_HOUR_MS = HOUR_SECONDS * 1000


def entry_row(entry: LedgerEntry) -> EntryRow:
    """Returns the row of an entry, with amounts that are bounded and texts that can be encoded."""
    usage = entry.usage
    return (
        encodable(entry.request_id), entry.at, encodable(entry.token_id),
        None if entry.owner is None else encodable(entry.owner), None if entry.model is None else encodable(entry.model),
        encodable(entry.deployment), encodable(entry.endpoint), entry.status,
        bounded(usage.prompt_tokens), bounded(usage.completion_tokens), bounded(usage.cached_tokens),
        bounded(usage.cache_write_tokens), bounded(usage.reasoning_tokens), bounded(usage.audio_prompt_tokens),
        bounded(usage.audio_completion_tokens), bounded(entry.cost), bounded(entry.duration_ms),
        None if entry.first_byte_ms is None else bounded(entry.first_byte_ms), int(entry.partial), int(entry.estimated),
    )  # fmt: skip


def hour_rows(rows: Iterable[EntryRow]) -> list[HourRow]:
    """Returns what the rows of entries add to each hour, so that a batch changes the row of an hour once.

    It adds numbers up in place: a tuple of sums for each entry took longer than SQLite takes to insert it.
    """
    hours: dict[tuple[int, str, str | None, str | None], list[int]] = {}
    for row in rows:
        (
            _,
            at,
            token,
            owner,
            model,
            _,
            _,
            status,
            prompt,
            completion,
            cached,
            _,
            reasoning,
            _,
            _,
            cost,
            _,
            _,
            part,
            guess,
        ) = row
        key = (at // _HOUR_MS, token, owner, model)
        sums = hours.get(key)
        if sums is None:
            sums = hours[key] = [0] * 9
        sums[0] += 1
        sums[1] += prompt
        sums[2] += completion
        sums[3] += cached
        sums[4] += reasoning
        sums[5] += cost
        if status >= 400:
            sums[6] += 1
        sums[7] += part
        sums[8] += guess
    # SQL takes two NULLs in a key for different values, so there are empty strings in their place.
    return [
        (hour * HOUR_SECONDS, token, owner or "", model or "", *sums)
        for (hour, token, owner, model), sums in hours.items()
    ]
