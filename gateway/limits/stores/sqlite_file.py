"""The file of counters: one row for each token, whoever counts: in memory or in the file itself. So nobody's budget is refilled
by a restart, nor when the number of workers changes."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.limits.algorithms import Counter
from gateway.storage import sqlite

COUNTERS_FILE = "counters.sqlite"
VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (holder TEXT PRIMARY KEY, levels BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (id INTEGER PRIMARY KEY, seen_at INTEGER NOT NULL);
"""
_KEPT_AFTER_END_MS = 86_400_000
_GET = "SELECT levels FROM counters WHERE holder = ?"
_PUT = "INSERT INTO counters VALUES (?, ?) ON CONFLICT (holder) DO UPDATE SET levels = excluded.levels"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Counter]).decode

Counters = dict[str, Counter]
"""All the counters of one token by their names."""


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Raises OSError, sqlite3.Error."""
    return sqlite.connect(path, SCHEMA, VERSION, busy_seconds)


def get(connection: sqlite3.Connection, holder: str) -> Counters:
    """Raises sqlite3.Error, also for a row that is not ours."""
    row = connection.execute(_GET, (holder,)).fetchone()
    return {} if row is None else _read(row[0])


def put(connection: sqlite3.Connection, holder: str, counters: Mapping[str, Counter]) -> None:
    """Raises sqlite3.Error."""
    connection.execute(_PUT, (holder, _encode(counters)))


def read_all(connection: sqlite3.Connection) -> dict[str, Counters]:
    """Raises sqlite3.Error."""
    return {holder: _read(data) for holder, data in connection.execute("SELECT holder, levels FROM counters")}


def forget(counters: Counters, now: int) -> None:
    """Drop windows that ended a day ago: nobody asks for their names again."""
    for name in [name for name, level in counters.items() if _is_over(level, now)]:
        del counters[name]


def _is_over(level: Counter, now: int) -> bool:
    return level.ends_at is not None and level.ends_at + _KEPT_AFTER_END_MS < now and level.reserved == 0


def _read(data: bytes) -> Counters:
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise sqlite3.DatabaseError(f"a counter is damaged: {error}") from None
