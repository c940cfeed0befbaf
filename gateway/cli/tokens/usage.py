"""Reports usage for the command ``usage``: uses from the token file; requests, tokens and money from the ledger.

Only that command imports this module, because SQLite takes long to load.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from gateway.cli.tokens import text
from gateway.core.clock import LATEST, to_iso, to_local_iso
from gateway.core.money import format_usd
from gateway.tokens import serializers
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import TokenRecord
from gateway.usage import reports
from gateway.usage.models import (
    BUCKET_SECONDS,
    DAY_SECONDS,
    HOUR_SECONDS,
    NO_TOTALS,
    Bucket,
    GroupBy,
    ReportQuery,
    ReportRow,
    UsageTotals,
)
from gateway.usage.store import UsageStore
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore

SUM_HEADINGS = ("REQUESTS", "PROMPT", "COMPLETION", "COST USD", "ERRORS")
BY_HOUR_UP_TO = 2 * DAY_SECONDS
"""The longest time, in seconds, that is drawn hour by hour."""

_MOST_BARS = 50
_ANY_NUMBER = 2**53


class UsageQuery(NamedTuple):
    """Holds what is asked for. ``since`` in seconds since the epoch, None for the beginning; ``token`` if one was named."""

    by: GroupBy
    since: int | None
    now: float
    token: TokenRecord | None


class UsageReport(NamedTuple):
    """Holds what was found: tokens by their uses, sums for each group, and the sums of all groups over time."""

    view: TokenHierarchy
    query: UsageQuery
    records: Sequence[TokenRecord]
    groups: Mapping[str | None, UsageTotals]
    bucket: Bucket
    series: Sequence[ReportRow]

    def as_json(self) -> dict[str, Any]:
        """Returns the document that ``--json`` prints."""
        if self.query.by == "token":
            usage = [
                {
                    **serializers.to_usage_json(self.view, record, self.query.now),
                    **reports.as_json(self._totals(record)),
                }
                for record in self.records
            ]
        else:
            usage = [{"group": group, **reports.as_json(totals)} for group, totals in self._most_expensive_first()]
        series = [{"start": to_iso(row.start), **reports.as_json(row.totals)} for row in self.series]
        return {"usage": usage, "series": series}

    def as_csv(self) -> str:
        """Returns a row for each row of the table; tokens by their ids."""
        if self.query.by != "token":
            rows = [ReportRow(None, group, totals) for group, totals in self._most_expensive_first()]
            return reports.as_csv(rows, has_start=False)
        rows = [ReportRow(None, record.id, self._totals(record)) for record in self.records]
        return reports.as_csv(rows, {record.id: record.name for record in self.records}, has_start=False)

    def write(self, out: TextIO) -> None:
        """Writes the table, and to a terminal bars over time below it."""
        if self.query.by == "token":
            headings = (*text.USAGE_HEADINGS, *SUM_HEADINGS)
            rows = [
                (*text.usage_row(self.view, record, self.query.now), *_sum_cells(self._totals(record)))
                for record in self.records
            ]
            text.write_table(out, headings, rows)
        else:
            groups = [(group or "-", *_sum_cells(totals)) for group, totals in self._most_expensive_first()]
            text.write_table(out, ("GROUP", *SUM_HEADINGS), groups)
        if out.isatty() and self.series:
            _draw_bars(out, self)

    def _totals(self, record: TokenRecord) -> UsageTotals:
        return self.groups.get(record.id, NO_TOTALS)

    def _most_expensive_first(self) -> list[tuple[str | None, UsageTotals]]:
        return sorted(self.groups.items(), key=lambda item: (-item[1].cost, -item[1].requests, item[0] or ""))


def read_report(view: TokenHierarchy, data_dir: Path, query: UsageQuery) -> UsageReport:
    """Reads the ledger; one that does not exist is empty. Blocks. Raises OSError where it cannot be read."""
    store: UsageStore = SqliteUsageStore(data_dir / LEDGER_FILE)
    is_short = query.since is not None and int(query.now) - query.since <= BY_HOUR_UP_TO
    bucket: Bucket = "hour" if is_short else "day"
    ids = None if query.token is None else frozenset({query.token.id})
    whole = ReportQuery(query.since or 0, LATEST, token_ids=ids, max_rows=_ANY_NUMBER)
    groups = {row.group: row.totals for row in store.report(whole._replace(group_by=query.by))}
    series = store.report(whole._replace(bucket=bucket))
    records = view.records if query.token is None else (query.token,)
    if query.since is not None:
        since = query.since
        records = tuple(one for one in records if (one.last_used or -1) >= since or one.id in groups)
    by_uses = sorted(records, key=lambda record: -record.usage_count)
    return UsageReport(view, query, by_uses, groups, bucket, series)


def _sum_cells(totals: UsageTotals) -> tuple[str, ...]:
    counts = (totals.requests, totals.prompt_tokens, totals.completion_tokens)
    return *map(str, counts), format_usd(totals.cost), str(totals.errors)


def _draw_bars(out: TextIO, report: UsageReport) -> None:
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    has_cost = any(row.totals.cost for row in report.series)
    bars = [(label, totals.cost if has_cost else totals.requests) for label, totals in _timeline(report)]
    largest = max(amount for _, amount in bars) or 1
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    for label, amount in bars:
        amount_text = format_usd(amount) if has_cost else str(amount)
        grid.add_row(Text(label), Bar(largest, 0, amount, color="cyan"), Text(amount_text))
    console = Console(file=out)
    console.print(Text(f"{'Cost in USD' if has_cost else 'Requests'} per {report.bucket}, UTC"))
    console.print(grid)


def _timeline(report: UsageReport) -> list[tuple[str, UsageTotals]]:
    """Returns the latest times with their labels, those in between in which nothing was used included."""
    step = BUCKET_SECONDS[report.bucket]
    found = {row.start: row.totals for row in report.series if row.start is not None}
    if not found:
        return []
    last = max(found)
    first = max(min(found), last - (_MOST_BARS - 1) * step)
    length = len("2026-01-31T10:30" if step == HOUR_SECONDS else "2026-01-31")
    return [
        (to_local_iso(start)[:length].replace("T", " "), found.get(start, NO_TOTALS))
        for start in range(first, last + step, step)
    ]
