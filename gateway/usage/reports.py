"""Reports on what was used: read from a usage store without blocking the event loop, and written as JSON or CSV.

Money stays in whole micro-dollars until it becomes text. A range is widened to whole hours, because a store keeps no finer sums
for ever.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from gateway.core import csv_text
from gateway.core.bounded_threads import BoundedThreads
from gateway.core.clock import to_iso
from gateway.core.errors import ReportTimeout, StoreUnavailable
from gateway.core.money import format_usd
from gateway.usage.models import NO_TOTALS, ReportQuery, ReportRow, UsageTotals
from gateway.usage.store import ReportTooSlow, UsageStore, UsageStoreError

log = logging.getLogger(__name__)

T = TypeVar("T")


class UsageReports:
    """Reads a usage store from the event loop; each read runs in one of few threads, on behalf of a caller."""

    def __init__(self, store: UsageStore, threads: BoundedThreads) -> None:
        self._store = store
        self._threads = threads

    async def rows(self, caller: str, query: ReportQuery, render: Callable[[list[ReportRow]], T]) -> T:
        """Returns what ``render`` makes of the rows of a report. It runs in the thread, too: there may be thousands of rows.

        Raises StoreUnavailable, ReportTimeout, RateLimited, TooManyReads, TooManyRows.
        """
        return await self._read(caller, lambda: render(self._store.report(query)))

    async def total(self, caller: str, token_id: str) -> UsageTotals:
        """Returns all that a token has ever used. Raises StoreUnavailable, ReportTimeout, RateLimited, TooManyReads."""
        return await self._read(caller, lambda: self._store.totals(token_id))

    async def _read(self, caller: str, work: Callable[[], T]) -> T:
        try:
            return await self._threads.run(caller, work)
        except ReportTooSlow as error:
            raise ReportTimeout(error.seconds) from None
        except UsageStoreError as error:
            log.error("the ledger cannot be read", extra={"problem": str(error)})
            raise StoreUnavailable("The ledger cannot be read at the moment. Please try again.") from None


def total(rows: Iterable[ReportRow]) -> UsageTotals:
    """Returns the sums of all rows."""
    found = NO_TOTALS
    for row in rows:
        found = found.plus(row.totals)
    return found


def round_down(seconds: int, step: int) -> int:
    """Returns the largest multiple of ``step`` that is not above ``seconds``."""
    return seconds // step * step


def round_up(seconds: int, step: int) -> int:
    """Returns the smallest multiple of ``step`` that is not below ``seconds``."""
    return -(-seconds // step) * step


def as_json(totals: UsageTotals) -> dict[str, Any]:
    """Returns totals as responses and ``--json`` show them, for msgspec. ``cost_usd`` is a number with all its digits."""
    shown: dict[str, Any] = {}
    for name, value in totals._asdict().items():
        if name == "cost":
            shown["cost_usd"] = msgspec.Raw(format_usd(value).encode())
        else:
            shown[name] = value
    return shown


def as_csv(rows: Iterable[ReportRow], names: Mapping[str, str] | None = None, *, has_start: bool = True) -> str:
    """Returns a table with a line of headings.

    ``names`` are names by group; without them the table has no such column. Without ``has_start`` it has no column of times.
    """
    headings = ("cost_usd" if name == "cost" else name for name in UsageTotals._fields)
    lines: list[Sequence[str | int]] = [
        [*(["start"] if has_start else []), "group", *([] if names is None else ["name"]), *headings]
    ]
    for row in rows:
        start = [to_iso(row.start) or ""] if has_start else []
        name = [] if names is None else [names.get(row.group or "", "")]
        amounts = [format_usd(value) if field == "cost" else value for field, value in row.totals._asdict().items()]
        lines.append([*start, row.group or "", *name, *amounts])
    return csv_text.encode(lines)
