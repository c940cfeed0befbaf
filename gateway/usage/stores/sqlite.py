"""The usage store in a SQLite file: each request once, and sums by the hour."""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.storage import sqlite
from gateway.storage.sqlite import WrongVersion
from gateway.usage.aggregation import HourKey, bounded, encodable, hour_key, totals_of
from gateway.usage.models import (
    BUCKET_SECONDS,
    HOUR_SECONDS,
    NO_TOTALS,
    GroupBy,
    LedgerEntry,
    ReportQuery,
    ReportRow,
    UsageTotals,
)
from gateway.usage.store import TooManyRows, UsageStoreError

LEDGER_FILE = "usage.sqlite"
"""The file's name in the folder for what the gateway itself writes."""

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    request_id TEXT PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL,
    token_id TEXT NOT NULL,
    owner TEXT,
    model TEXT,
    deployment TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    status INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    audio_prompt_tokens INTEGER NOT NULL,
    audio_completion_tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    first_byte_ms INTEGER,
    partial INTEGER NOT NULL,
    estimated INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_by_time ON entries (at);
CREATE TRIGGER IF NOT EXISTS entries_are_final BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TABLE IF NOT EXISTS hours (
    hour_start_seconds INTEGER NOT NULL,
    token_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    partial INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    PRIMARY KEY (hour_start_seconds, token_id, owner, model)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hours_by_token ON hours (token_id, hour_start_seconds);
"""

_SUMS = UsageTotals._fields
"""The columns of ``hours`` that are added up."""

_INSERT = f"INSERT INTO entries VALUES ({', '.join('?' * 20)}) ON CONFLICT (request_id) DO NOTHING"  # noqa: S608
_ADD = (
    f"INSERT INTO hours VALUES ({', '.join('?' * (4 + len(_SUMS)))})"  # noqa: S608
    " ON CONFLICT (hour_start_seconds, token_id, owner, model) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)
)
_PRUNE = "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries WHERE at < ? LIMIT ?)"
_ADDED_UP = ", ".join(f"coalesce(sum({name}), 0)" for name in _SUMS)
_TOTALS = f"SELECT {_ADDED_UP} FROM hours WHERE token_id = ?"  # noqa: S608
_GROUP_COLUMNS: dict[GroupBy, str] = {"token": "token_id", "model": "model", "owner": "owner"}


class SqliteUsageStore:
    """Implements ``UsageStore`` with one file. Made before a fork or after it, it opens the file at its first use."""

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        """``busy_seconds`` is how long a call waits for another process that writes."""
        self.path = path
        self._busy_seconds = busy_seconds
        self._lock = threading.Lock()
        self._writer = sqlite.ReopeningConnection(
            path, lambda: sqlite.connect(path, _SCHEMA, SCHEMA_VERSION, busy_seconds)
        )

    def write(self, entries: Sequence[LedgerEntry]) -> int:
        """See ``UsageStore.write``. Raises UsageStoreError."""
        with self._writing() as connection:
            connection.execute("BEGIN IMMEDIATE")
            new = _insert(connection, entries)
            hours: dict[HourKey, UsageTotals] = {}
            for entry in new:
                key, totals = hour_key(entry), totals_of(entry)
                before = hours.get(key)
                hours[key] = totals if before is None else before.plus(totals)
            connection.executemany(_ADD, [(*key, *totals) for key, totals in hours.items()])
            connection.execute("COMMIT")
        return len(new)

    def prune(self, before_ms: int, limit: int) -> int:
        """See ``UsageStore.prune``. Raises UsageStoreError."""
        with self._writing() as connection:
            return connection.execute(_PRUNE, (before_ms, limit)).rowcount

    def report(self, query: ReportQuery) -> list[ReportRow]:
        """See ``UsageStore.report``. Raises UsageStoreError, TooManyRows."""
        statement, values = _statement(query)
        with self._reading() as connection:
            found = [] if connection is None else connection.execute(statement, values).fetchall()
        if len(found) > query.max_rows:
            raise TooManyRows(f"there are more than {query.max_rows} rows")
        return [ReportRow(start, group or None, UsageTotals(*totals)) for start, group, *totals in found]

    def totals(self, token_id: str) -> UsageTotals:
        """See ``UsageStore.totals``. Raises UsageStoreError."""
        with self._reading() as connection:
            if connection is None:
                return NO_TOTALS
            return UsageTotals(*connection.execute(_TOTALS, (token_id,)).fetchone())

    def close(self) -> None:
        """Closes the file. The next write opens it again."""
        with self._lock:
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection of this process. A failure closes it, which rolls an open transaction back."""
        with self._lock, self._convert_errors():
            try:
                yield self._writer.get()
            except BaseException:
                self._writer.close()
                raise

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Yields a read-only connection that sees one moment; None where nothing has been written yet."""
        with self._convert_errors():
            # The path is checked first: of a missing file, SQLite only says that it cannot be opened for reading.
            if not self.path.exists():
                yield None
                return
            address = f"{self.path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(address, uri=True, timeout=self._busy_seconds, isolation_level=None)
            with contextlib.closing(connection):
                connection.execute("BEGIN")
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > SCHEMA_VERSION:
                    raise WrongVersion("it was written by a newer version of the gateway")
                # A file without a version is just being created by another process, and has no tables yet.
                yield connection if version else None

    @contextlib.contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UsageStoreError(f"the ledger {self.path} cannot be used: {error}") from error
        except OSError as error:
            raise UsageStoreError(str(error)) from error


def _statement(query: ReportQuery) -> tuple[str, Sequence[str | int]]:
    """Returns the SQL of a report, and its values. Every name in the SQL is written in this file."""
    start, group = "NULL", "NULL"
    if query.bucket is not None:
        seconds = BUCKET_SECONDS[query.bucket]
        start = f"hour_start_seconds / {seconds} * {seconds}"
    if query.group_by is not None:
        group = _GROUP_COLUMNS[query.group_by]
    text = f"SELECT {start}, {group}, {_ADDED_UP} FROM hours WHERE hour_start_seconds >= ? AND hour_start_seconds < ?"  # noqa: S608
    values: list[str | int] = [query.since // HOUR_SECONDS * HOUR_SECONDS, query.until]
    if query.token_ids is not None:
        # As one value: the number of values in a statement is limited, the number of tokens is not.
        text += " AND token_id IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(sorted(query.token_ids)))
    return f"{text} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT ?", [*values, query.max_rows + 1]


def _insert(connection: sqlite3.Connection, entries: Sequence[LedgerEntry]) -> Sequence[LedgerEntry]:
    """Inserts the entries and returns the new ones. All at once, because nearly always all are new; otherwise one by one."""
    rows = [_row(entry) for entry in entries]
    connection.execute("SAVEPOINT batch")
    before = connection.total_changes
    connection.executemany(_INSERT, rows)
    if connection.total_changes - before == len(rows):
        return entries
    connection.execute("ROLLBACK TO batch")
    pairs = zip(entries, rows, strict=True)
    return [entry for entry, row in pairs if connection.execute(_INSERT, row).rowcount == 1]


def _row(entry: LedgerEntry) -> tuple[str | int | None, ...]:
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
