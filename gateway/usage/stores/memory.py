"""A usage store in memory: for programs that embed the gateway, and for tests. What it holds ends with the process."""

import threading
from collections.abc import Sequence

from gateway.usage.aggregation import HourKey, hour_key, totals_of
from gateway.usage.models import (
    BUCKET_SECONDS,
    HOUR_SECONDS,
    NO_TOTALS,
    LedgerEntry,
    ReportQuery,
    ReportRow,
    UsageTotals,
)
from gateway.usage.store import TooManyRows


class MemoryUsageStore:
    """Implements ``UsageStore`` for one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, LedgerEntry] = {}
        self._hours: dict[HourKey, UsageTotals] = {}
        self._running: dict[str, LedgerEntry] = {}

    def write(self, entries: Sequence[LedgerEntry]) -> int:
        """See ``UsageStore.write``. Raises nothing."""
        with self._lock:
            before = len(self._entries)
            for entry in entries:
                self._running.pop(entry.request_id, None)
                if entry.request_id not in self._entries:
                    self._entries[entry.request_id] = entry
                    key = hour_key(entry)
                    self._hours[key] = self._hours.get(key, NO_TOTALS).plus(totals_of(entry))
            return len(self._entries) - before

    def write_running(self, entries: Sequence[LedgerEntry]) -> None:
        """See ``UsageStore.write_running``. Raises nothing."""
        with self._lock:
            self._running.update({one.request_id: one for one in entries if one.request_id not in self._entries})

    def take_over(self) -> int:
        """Returns 0: what the store holds ends with its process."""
        return 0

    def prune(self, before_ms: int, limit: int) -> int:
        """See ``UsageStore.prune``. Raises nothing."""
        with self._lock:
            old = [request_id for request_id, entry in self._entries.items() if entry.at < before_ms][:limit]
            for request_id in old:
                del self._entries[request_id]
            return len(old)

    def report(self, query: ReportQuery) -> list[ReportRow]:
        """See ``UsageStore.report``. Raises TooManyRows."""
        hours = self._sums()
        first = query.since // HOUR_SECONDS * HOUR_SECONDS
        sums: dict[tuple[int, str], UsageTotals] = {}
        for key, totals in hours:
            is_asked = query.token_ids is None or key[1] in query.token_ids
            if is_asked and first <= key[0] < query.until:
                row = _row_key(key, query)
                sums[row] = sums.get(row, NO_TOTALS).plus(totals)
        if len(sums) > query.max_rows:
            raise TooManyRows(f"there are more than {query.max_rows} rows")
        return [
            ReportRow(None if query.bucket is None else start, group or None, sums[start, group])
            for start, group in sorted(sums)
        ]

    def totals(self, token_id: str) -> UsageTotals:
        """See ``UsageStore.totals``. Raises nothing."""
        hours = self._sums()
        found = NO_TOTALS
        for key, totals in hours:
            if key[1] == token_id:
                found = found.plus(totals)
        return found

    def _sums(self) -> list[tuple[HourKey, UsageTotals]]:
        with self._lock:
            return [*self._hours.items(), *((hour_key(one), totals_of(one)) for one in self._running.values())]

    def close(self) -> None:
        """Does nothing: what the store holds stays."""


def _row_key(key: HourKey, query: ReportQuery) -> tuple[int, str]:
    """Returns the bucket and group of an hour; 0 and an empty string where the query has none."""
    start, token_id, owner, model = key
    seconds = None if query.bucket is None else BUCKET_SECONDS[query.bucket]
    groups = {"token": token_id, "owner": owner, "model": model}
    return (
        0 if seconds is None else start // seconds * seconds,
        "" if query.group_by is None else groups[query.group_by],
    )
