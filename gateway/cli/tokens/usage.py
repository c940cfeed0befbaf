"""The command ``usage``: what the token file tells of uses, and what the ledger tells of tokens, models and money.

Imported by that command alone, because SQLite takes its time to load.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from gateway.cli.tokens import tables, text
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
"""A shorter time than this is drawn hour by hour."""

_MOST_BARS = 50
_ANY_NUMBER = 2**53


class Asked(NamedTuple):
    """``since`` in seconds since the epoch; None is from the beginning. ``token`` is the one that was named."""

    by: GroupBy
    since: int | None
    now: float
    token: TokenRecord | None


class Report(NamedTuple):
    """What was found: a line for each token or group, and the sums over time of everything that was asked for."""

    records: Sequence[TokenRecord]
    groups: Mapping[str | None, UsageTotals]
    bucket: Bucket
    series: Sequence[ReportRow]


def gather(view: TokenHierarchy, data_dir: Path, asked: Asked) -> Report:
    """Blocking. Raises OSError for a ledger that cannot be read; one that is not there is empty."""
    store: UsageStore = SqliteUsageStore(data_dir / LEDGER_FILE)
    is_short = asked.since is not None and int(asked.now) - asked.since <= BY_HOUR_UP_TO
    bucket: Bucket = "hour" if is_short else "day"
    ids = None if asked.token is None else frozenset({asked.token.id})
    whole = ReportQuery(asked.since or 0, LATEST, token_ids=ids, max_rows=_ANY_NUMBER)
    groups = {row.group: row.totals for row in store.report(whole._replace(group_by=asked.by))}
    series = store.report(whole._replace(bucket=bucket))
    records = view.document.tokens if asked.token is None else (asked.token,)
    if asked.since is not None:
        since = asked.since
        records = tuple(one for one in records if (one.last_used or -1) >= since or one.id in groups)
    by_uses = sorted(records, key=lambda record: -record.usage_count)
    return Report(by_uses, groups, bucket, series)


def as_json(view: TokenHierarchy, report: Report, asked: Asked) -> dict[str, Any]:
    """The document that ``--json`` prints."""
    if asked.by == "token":
        usage = [
            {**serializers.usage(view, record, asked.now), **reports.as_json(report.groups.get(record.id, NO_TOTALS))}
            for record in report.records
        ]
    else:
        usage = [{"group": group, **reports.as_json(totals)} for group, totals in _dearest_first(report.groups)]
    series = [{"start": to_iso(row.start), **reports.as_json(row.totals)} for row in report.series]
    return {"usage": usage, "series": series}


def as_csv(report: Report, asked: Asked) -> str:
    """A line for each line of the table; tokens by their ids."""
    if asked.by != "token":
        rows = [ReportRow(None, group, totals) for group, totals in _dearest_first(report.groups)]
        return reports.as_csv(rows, has_start=False)
    rows = [ReportRow(None, record.id, report.groups.get(record.id, NO_TOTALS)) for record in report.records]
    return reports.as_csv(rows, {record.id: record.name for record in report.records}, has_start=False)


def write(out: TextIO, view: TokenHierarchy, report: Report, asked: Asked) -> None:
    """The table, and on a terminal bars over time below it."""
    if asked.by == "token":
        headings = (*text.USAGE_HEADINGS, *SUM_HEADINGS)
        rows = [
            (*text.usage_row(view, record, asked.now), *_sum_cells(report.groups.get(record.id, NO_TOTALS)))
            for record in report.records
        ]
        tables.write(out, headings, rows)
    else:
        groups = [(group or "-", *_sum_cells(totals)) for group, totals in _dearest_first(report.groups)]
        tables.write(out, ("GROUP", *SUM_HEADINGS), groups)
    if out.isatty() and report.series:
        _draw(out, report)


def _sum_cells(totals: UsageTotals) -> tuple[str, ...]:
    counts = (totals.requests, totals.prompt_tokens, totals.completion_tokens)
    return *map(str, counts), format_usd(totals.cost), str(totals.errors)


def _dearest_first(groups: Mapping[str | None, UsageTotals]) -> list[tuple[str | None, UsageTotals]]:
    return sorted(groups.items(), key=lambda item: (-item[1].cost, -item[1].requests, item[0] or ""))


def _draw(out: TextIO, report: Report) -> None:
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
        shown = format_usd(amount) if has_cost else str(amount)
        grid.add_row(Text(label), Bar(largest, 0, amount, color="cyan"), Text(shown))
    console = Console(file=out)
    console.print(Text(f"{'Cost in USD' if has_cost else 'Requests'} per {report.bucket}, UTC"))
    console.print(grid)


def _timeline(report: Report) -> list[tuple[str, UsageTotals]]:
    """The latest times with their labels, also those between them in which nothing was used."""
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
