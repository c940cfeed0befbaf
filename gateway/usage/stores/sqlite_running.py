"""The table of requests that still run, beside the entries of the ledger: what each has used so far, and which process serves it.

A row is replaced by the request's entry, in one transaction. Rows whose process has ended become entries.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from gateway.storage import sqlite
from gateway.usage.aggregation import encodable, hour_key, totals_of
from gateway.usage.models import LedgerEntry, UsageTotals

SUMS = ", ".join(UsageTotals._fields)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS running (
    request_id TEXT PRIMARY KEY NOT NULL,
    process INTEGER NOT NULL,
    entry BLOB NOT NULL,
    hour_start_seconds INTEGER NOT NULL,
    token_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    {" INTEGER NOT NULL, ".join(UsageTotals._fields)} INTEGER NOT NULL
);
"""
"""Files of earlier versions have no such table, and earlier versions do not look at it: the file's version stays the same."""
INTERRUPTED = 500
"""The status of a request whose process ended before it did."""

_COUNT = 7 + len(UsageTotals._fields)
_REPLACE = (
    f"INSERT OR REPLACE INTO running SELECT {', '.join(f'?{number + 1}' for number in range(_COUNT))}"  # noqa: S608
    " WHERE NOT EXISTS (SELECT 1 FROM entries WHERE request_id = ?1)"
)
_KEY = "hour_start_seconds, token_id, owner, model"
_WITH_RUNNING = f"(SELECT {_KEY}, {SUMS} FROM hours UNION ALL SELECT {_KEY}, {SUMS} FROM running)"  # noqa: S608
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LedgerEntry).decode


def connect(path: Path, schema: str, version: int, busy_seconds: float) -> sqlite3.Connection:
    """Does what ``storage.sqlite.connect`` does, and adds the table where it is missing. Raises OSError, sqlite3.Error."""
    connection = sqlite.connect(path, schema, version, busy_seconds)
    try:
        connection.execute(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def replace_rows(connection: sqlite3.Connection, process: int, entries: Sequence[LedgerEntry]) -> None:
    """Replaces the rows of these requests, except of those that are in the ledger already. Raises sqlite3.Error."""
    connection.executemany(_REPLACE, [_row(process, entry) for entry in entries])


def end(connection: sqlite3.Connection, entries: Sequence[LedgerEntry]) -> None:
    """Removes the rows of requests whose entries are being written. Raises sqlite3.Error."""
    if _is_any(connection):
        ids = [(encodable(entry.request_id),) for entry in entries]
        connection.executemany("DELETE FROM running WHERE request_id = ?", ids)


def take_ended(connection: sqlite3.Connection, is_running: Callable[[int], bool]) -> list[LedgerEntry]:
    """Removes the rows of processes that have ended, and returns their entries. ``is_running`` is asked with a process's number.

    Raises sqlite3.Error, also for a damaged row, and what ``is_running`` raises.
    """
    numbers = [number for (number,) in connection.execute("SELECT DISTINCT process FROM running").fetchall()]
    found: list[LedgerEntry] = []
    for number in numbers:
        if not is_running(number):
            rows = connection.execute("DELETE FROM running WHERE process = ? RETURNING entry", (number,)).fetchall()
            found += [msgspec.structs.replace(_decoded(data), status=INTERRUPTED) for (data,) in rows]
    return found


def sums_table(connection: sqlite3.Connection) -> str:
    """Returns the SQL of what a report adds up: the hours, with what runs where anything does. Raises sqlite3.Error."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'running'").fetchone()[0]
    return _WITH_RUNNING if tables and _is_any(connection) else "hours"


def _is_any(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM running)").fetchone()[0])


def _row(process: int, entry: LedgerEntry) -> tuple[str | int | bytes, ...]:
    entry = msgspec.structs.replace(
        entry,
        request_id=encodable(entry.request_id),
        token_id=encodable(entry.token_id),
        owner=None if entry.owner is None else encodable(entry.owner),
        model=None if entry.model is None else encodable(entry.model),
        deployment=encodable(entry.deployment),
        endpoint=encodable(entry.endpoint),
    )
    return entry.request_id, process, _encode(entry), *hour_key(entry), *totals_of(entry)


def _decoded(data: bytes) -> LedgerEntry:
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise sqlite3.DatabaseError(f"a row of a running request is damaged: {error}") from None
