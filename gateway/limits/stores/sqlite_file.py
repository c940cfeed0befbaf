"""Reads and writes the SQLite file of counters: one row for each token, with all its counters.

Both stores use the same file, so that neither a restart nor another number of workers refills anybody's budget.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.limits.algorithms import Counter, Limit
from gateway.limits.store import TokenCounters, find_counter
from gateway.storage import sqlite

COUNTERS_FILE = "counters.sqlite"
VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (holder TEXT PRIMARY KEY, levels BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (id INTEGER PRIMARY KEY, seen_at INTEGER NOT NULL);
"""
_SELECT = "SELECT levels FROM counters WHERE holder = ?"
_UPSERT = "INSERT INTO counters VALUES (?, ?) ON CONFLICT (holder) DO UPDATE SET levels = excluded.levels"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TokenCounters).decode


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Opens the file and makes it where there is none. Raises OSError, sqlite3.Error."""
    return sqlite.connect(path, SCHEMA, VERSION, busy_seconds)


def read_token(connection: sqlite3.Connection, token_id: str) -> TokenCounters:
    """Returns the counters of one token. Raises sqlite3.Error, also for a damaged row."""
    row = connection.execute(_SELECT, (token_id,)).fetchone()
    return {} if row is None else _decoded(row[0])


def write_token(connection: sqlite3.Connection, token_id: str, counters: Mapping[str, Counter]) -> None:
    """Replaces the counters of one token. Raises sqlite3.Error."""
    connection.execute(_UPSERT, (token_id, _encode(counters)))


def read_all(connection: sqlite3.Connection) -> dict[str, TokenCounters]:
    """Returns the counters of all tokens by their ids. Raises sqlite3.Error, also for a damaged row."""
    return {token_id: _decoded(data) for token_id, data in connection.execute("SELECT holder, levels FROM counters")}


def _decoded(data: bytes) -> TokenCounters:
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise sqlite3.DatabaseError(f"a counter is damaged: {error}") from None


class CounterRows:
    """Holds the rows that one transaction reads and changes. Each is read when it is first needed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tokens: dict[str, TokenCounters] = {}

    def counter(self, limit: Limit, now: int | None) -> Counter:
        """Returns the counter of a limit, refilled up to ``now`` (milliseconds) if that is given. Raises sqlite3.Error."""
        counters = self._tokens.get(limit.token_id)
        if counters is None:
            counters = self._tokens[limit.token_id] = read_token(self._connection, limit.token_id)
        return find_counter(counters, limit, now)

    def write(self) -> None:
        """Writes all rows that were read. Raises sqlite3.Error."""
        for token_id, counters in self._tokens.items():
            write_token(self._connection, token_id, counters)
