"""What the ledger tells: sums by time and by whom, read from its hours. Money stays whole micro-dollars up to its text.

A range is widened to whole hours, because the ledger keeps no finer sums for ever.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from gateway.core.clock import to_iso
from gateway.core.money import format_usd
from gateway.usage.stores.sqlite import HOUR, SUMS, SqliteUsageStore

MAX_ROWS = 10_000
DAY = 24 * HOUR

Bucket = Literal["hour", "day"]
GroupBy = Literal["token", "model", "owner"]

BUCKET_SECONDS: Mapping[Bucket, int] = {"hour": HOUR, "day": DAY}
_GROUP_COLUMNS: Mapping[GroupBy, str] = {"token": "token_id", "model": "model", "owner": "owner"}
_ADDED_UP = ", ".join(f"coalesce(sum({name}), 0)" for name in SUMS)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


class TooManyRows(ValueError):
    """More than was asked for at most."""


class UsageTotals(NamedTuple):
    """Counts, and ``cost`` in micro-dollars. ``errors`` are answers of 400 and above."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    errors: int = 0
    partial: int = 0
    estimated: int = 0


NOTHING = UsageTotals()


class ReportRow(NamedTuple):
    """``start`` in seconds since the epoch, None without buckets. ``group`` is None without groups, and where an owner or
    a model is not known."""

    start: int | None
    group: str | None
    totals: UsageTotals


class ReportQuery(NamedTuple):
    """What is asked. Times in seconds since the epoch; the hour that holds ``since`` counts, and so does every later one
    that begins before ``until``. Of ``token_ids`` None means all, also those that are no tokens or no longer."""

    since: int
    until: int
    bucket: Bucket | None = None
    group_by: GroupBy | None = None
    token_ids: frozenset[str] | None = None
    max_rows: int = MAX_ROWS


def read(file: SqliteUsageStore, query: ReportQuery) -> list[ReportRow]:
    """By time and then by group; without what was not used. Raises OSError, TooManyRows."""
    text, values = statement(query)
    with file.reading() as connection:
        found = [] if connection is None else connection.execute(text, values).fetchall()
    if len(found) > query.max_rows:
        raise TooManyRows(f"there are more than {query.max_rows} rows")
    return [ReportRow(start, group or None, UsageTotals(*totals)) for start, group, *totals in found]


def total_of(file: SqliteUsageStore, token_id: str, since: int | None = None) -> UsageTotals:
    """What one token has used, in all or from the hour that holds ``since``. Raises OSError."""
    after = "" if since is None else " AND hour_start_seconds >= ?"
    values = (token_id,) if since is None else (token_id, floor(since, HOUR))
    with file.reading() as connection:
        if connection is None:
            return NOTHING
        text = f"SELECT {_ADDED_UP} FROM hours WHERE token_id = ?{after}"  # noqa: S608
        return UsageTotals(*connection.execute(text, values).fetchone())


def statement(query: ReportQuery) -> tuple[str, Sequence[str | int]]:
    """The SQL for a query, and its values. Every name in it comes from here."""
    start, group = "NULL", "NULL"
    if query.bucket is not None:
        seconds = BUCKET_SECONDS[query.bucket]
        start = f"hour_start_seconds / {seconds} * {seconds}"
    if query.group_by is not None:
        group = _GROUP_COLUMNS[query.group_by]
    text = f"SELECT {start}, {group}, {_ADDED_UP} FROM hours WHERE hour_start_seconds >= ? AND hour_start_seconds < ?"  # noqa: S608
    values: list[str | int] = [floor(query.since, HOUR), query.until]
    if query.token_ids is not None:
        # As one value: the number of values in a statement has a limit, the number of tokens has none.
        text += " AND token_id IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(sorted(query.token_ids)))
    return f"{text} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT ?", [*values, query.max_rows + 1]


def total(rows: Iterable[ReportRow]) -> UsageTotals:
    columns = list(zip(*(row.totals for row in rows), strict=True))
    return UsageTotals(*map(sum, columns)) if columns else NOTHING


def floor(seconds: int, step: int) -> int:
    return seconds // step * step


def ceiling(seconds: int, step: int) -> int:
    return -(-seconds // step) * step


def as_json(totals: UsageTotals) -> dict[str, Any]:
    """As answers and ``--json`` show them, for msgspec. ``cost_usd`` is a number with all its digits."""
    shown: dict[str, Any] = {}
    for name, value in totals._asdict().items():
        if name == "cost":
            shown["cost_usd"] = msgspec.Raw(format_usd(value).encode())
        else:
            shown[name] = value
    return shown


def as_csv(rows: Iterable[ReportRow], names: Mapping[str, str] | None = None, *, has_start: bool = True) -> str:
    """With a line of headings. ``names`` are what groups are called; without them there is no such column, nor without
    ``has_start`` one of times."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\r\n")
    sum_headings = ("cost_usd" if name == "cost" else name for name in SUMS)
    writer.writerow([*(["start"] if has_start else []), "group", *([] if names is None else ["name"]), *sum_headings])
    for row in rows:
        start = [to_iso(row.start)] if has_start else []
        name = [] if names is None else [_cell(names.get(row.group or "", ""))]
        amounts = [format_usd(value) if field == "cost" else value for field, value in row.totals._asdict().items()]
        writer.writerow([*start, _cell(row.group or ""), *name, *amounts])
    return lines.getvalue()


def _cell(text: str) -> str:
    """A spreadsheet would take it for a formula, and names are whatever somebody has made up."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
