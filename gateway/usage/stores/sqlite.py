"""The usage store in a SQLite file: each request once, and sums by the hour."""

import contextlib
import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gateway.storage import sqlite
from gateway.storage.process_lock import ProcessLock
from gateway.storage.sqlite import WrongVersion
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
from gateway.usage.store import ReportTooSlow, TooManyRows, UsageStoreError
from gateway.usage.stores import sqlite_running as running
from gateway.usage.stores.sqlite_rows import EntryRow, entry_row, hour_rows

LEDGER_FILE = "usage.sqlite"
"""The file's name in the folder for what the gateway itself writes."""

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
_STEPS_PER_CHECK = 50_000
"""Steps of SQLite's machine between two looks at the clock: about a millisecond."""

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

_SUMS = UsageTotals._fields  # the columns of ``hours`` that are added up

_INSERT = f"INSERT INTO entries VALUES ({', '.join('?' * 20)}) ON CONFLICT (request_id) DO NOTHING"  # noqa: S608
_ADD = (
    f"INSERT INTO hours VALUES ({', '.join('?' * (4 + len(_SUMS)))})"  # noqa: S608
    " ON CONFLICT (hour_start_seconds, token_id, owner, model) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)
)
_PRUNE = "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries WHERE at < ? LIMIT ?)"
_ADDED_UP = ", ".join(f"coalesce(sum({name}), 0)" for name in _SUMS)
_GROUP_COLUMNS: dict[GroupBy, str] = {"token": "token_id", "model": "model", "owner": "owner"}


class SqliteUsageStore:
    """Implements ``UsageStore`` with one file. Made before a fork or after it, it opens the file at its first use."""

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS, report_seconds: float = math.inf) -> None:
        """``busy_seconds`` is how long a call waits for another process that writes, ``report_seconds`` how long a report may
        take."""
        self.path = path
        self._busy_seconds = busy_seconds
        self._report_seconds = report_seconds
        self._lock = threading.Lock()
        self._writer = sqlite.ReopeningConnection(
            path, lambda: running.connect(path, _SCHEMA, SCHEMA_VERSION, busy_seconds)
        )
        self._process = ProcessLock(path)

    def write(self, entries: Sequence[LedgerEntry]) -> int:
        """See ``UsageStore.write``. Raises UsageStoreError."""
        with self._writing() as connection:
            connection.execute("BEGIN IMMEDIATE")
            new = _add(connection, entries)
            running.end(connection, entries)
            connection.execute("COMMIT")
        return new

    def write_running(self, entries: Sequence[LedgerEntry]) -> None:
        """See ``UsageStore.write_running``. Raises UsageStoreError."""
        with self._writing() as connection:
            self._process.acquire()
            connection.execute("BEGIN IMMEDIATE")
            running.replace_rows(connection, self._process.number, entries)
            connection.execute("COMMIT")

    def take_over(self) -> int:
        """See ``UsageStore.take_over``. Raises UsageStoreError."""
        if not self.path.exists():
            return 0
        with self._writing() as connection:
            connection.execute("BEGIN IMMEDIATE")
            new = _add(connection, running.take_ended(connection, self._process.is_running))
            connection.execute("COMMIT")
        return new

    def prune(self, before_ms: int, limit: int) -> int:
        """See ``UsageStore.prune``. Raises UsageStoreError."""
        with self._writing() as connection:
            return connection.execute(_PRUNE, (before_ms, limit)).rowcount

    def report(self, query: ReportQuery) -> list[ReportRow]:
        """See ``UsageStore.report``. Raises UsageStoreError, ReportTooSlow, TooManyRows."""
        with self._reading() as connection:
            found = [] if connection is None else rows_of_report(connection, query)
        if len(found) > query.max_rows:
            raise TooManyRows(f"there are more than {query.max_rows} rows")
        return [ReportRow(start, group or None, UsageTotals(*totals)) for start, group, *totals in found]

    def totals(self, token_id: str) -> UsageTotals:
        """See ``UsageStore.totals``. Raises UsageStoreError, ReportTooSlow."""
        with self._reading() as connection:
            if connection is None:
                return NO_TOTALS
            totals = f"SELECT {_ADDED_UP} FROM {running.sums_table(connection)} WHERE token_id = ?"  # noqa: S608
            return UsageTotals(*connection.execute(totals, (token_id,)).fetchone())

    def close(self) -> None:
        """Closes the file. The next write opens it again."""
        with self._lock:
            self._writer.close()
            self._process.release()

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
    def _bounded(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Ends the statements of the block when they take too long. Raises ReportTooSlow."""
        deadline = time.monotonic() + self._report_seconds
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_PER_CHECK)
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            raise ReportTooSlow(self._report_seconds) from None

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
            with contextlib.closing(connection), self._bounded(connection):
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
        except UsageStoreError:
            raise
        except sqlite3.Error as error:
            raise UsageStoreError(f"the ledger {self.path} cannot be used: {error}") from error
        except OSError as error:
            raise UsageStoreError(str(error)) from error


def rows_of_report(connection: sqlite3.Connection, query: ReportQuery) -> list[tuple[Any, ...]]:
    """Returns the rows of a report, or as many empty ones as are too many. Raises sqlite3.Error.

    SQLite adds everything up before it applies a limit, so it first counts how many rows there would be, and no further than the
    limit.
    """
    statement, too_many = _Statement(query, running.sums_table(connection)), query.max_rows + 1
    if statement.count_hours(connection) == too_many and statement.count_rows(connection) == too_many:
        return [()] * too_many
    return statement.rows(connection)


class _Statement:
    """The SQL of a report, and its values. Every name in the SQL is written in this file."""

    def __init__(self, query: ReportQuery, table: str) -> None:
        self._start, self._group = _start_column(query), "NULL"
        if query.group_by is not None:
            self._group = _GROUP_COLUMNS[query.group_by]
        self._from = f"FROM {table} WHERE hour_start_seconds >= ? AND hour_start_seconds < ?"
        self._values: list[str | int] = [query.since // HOUR_SECONDS * HOUR_SECONDS, query.until]
        if query.token_ids is not None:
            # As one value: the number of values in a statement is limited, the number of tokens is not.
            self._from += " AND token_id IN (SELECT value FROM json_each(?))"
            self._values.append(json.dumps(sorted(query.token_ids)))
        self._values.append(query.max_rows + 1)

    def rows(self, connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
        text = f"SELECT {self._start}, {self._group}, {_ADDED_UP} {self._from} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT ?"
        return connection.execute(text, self._values).fetchall()

    def count_rows(self, connection: sqlite3.Connection) -> int:
        """Returns the number of rows, at most one more than the query allows."""
        return self._count(connection, f"SELECT DISTINCT {self._start}, {self._group}")

    def count_hours(self, connection: sqlite3.Connection) -> int:
        """Returns how many sums of an hour the rows are made of, as far as that."""
        return self._count(connection, "SELECT 1")

    def _count(self, connection: sqlite3.Connection, select: str) -> int:
        text = f"SELECT count(*) FROM ({select} {self._from} LIMIT ?)"  # noqa: S608
        return int(connection.execute(text, self._values).fetchone()[0])


def _start_column(query: ReportQuery) -> str:
    if query.bucket is None:
        return "NULL"
    if query.bucket == "hour":
        return "hour_start_seconds"  # as it is, SQLite finds the rows in this order and adds up without sorting
    seconds = BUCKET_SECONDS[query.bucket]
    return f"hour_start_seconds / {seconds} * {seconds}"


def _add(connection: sqlite3.Connection, entries: Sequence[LedgerEntry]) -> int:
    """Inserts the entries, adds the new ones up by the hour and returns how many were new."""
    new = _insert(connection, [entry_row(entry) for entry in entries])
    connection.executemany(_ADD, hour_rows(new))
    return len(new)


def _insert(connection: sqlite3.Connection, rows: Sequence[EntryRow]) -> Sequence[EntryRow]:
    """Inserts rows and returns the new ones. All at once, because nearly always all are new; otherwise one by one."""
    connection.execute("SAVEPOINT batch")
    before = connection.total_changes
    connection.executemany(_INSERT, rows)
    if connection.total_changes - before == len(rows):
        return rows
    connection.execute("ROLLBACK TO batch")
    return [row for row in rows if connection.execute(_INSERT, row).rowcount == 1]
