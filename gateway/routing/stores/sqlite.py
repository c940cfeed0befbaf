"""The object store in a SQLite file, which all workers of one machine share."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gateway.routing.ownership import ObjectKey, ObjectRecord, ObjectStoreError
from gateway.storage import sqlite

OBJECTS_FILE = "objects.sqlite"
"""The file's name in the folder for what the gateway itself writes."""

SCHEMA_VERSION = 1
BUSY_SECONDS = 2.0
"""How long a call waits for another process that writes: a client waits for it."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    provider TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (provider, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_by_time ON objects (at);
"""
_INSERT = "INSERT INTO objects VALUES (?, ?, ?, ?, ?) ON CONFLICT (provider, id) DO NOTHING"
_OWNER = "SELECT owner FROM objects WHERE provider = ? AND id = ?"
_PRUNE = (
    "DELETE FROM objects WHERE (provider, id) IN (SELECT provider, id FROM objects WHERE at < ? ORDER BY at LIMIT ?)"
)


class SqliteObjectStore:
    """Implements ``ObjectStore`` with one file. Made before a fork or after it, it opens the file at its first use."""

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        """``busy_seconds`` is how long a call waits for another process that writes."""
        self.path = path
        self._lock = threading.Lock()
        self._connection = sqlite.ReopeningConnection(
            path, lambda: sqlite.connect(path, _SCHEMA, SCHEMA_VERSION, busy_seconds)
        )

    def add(self, records: Sequence[ObjectRecord]) -> None:
        """See ``ObjectStore.add``. Raises ObjectStoreError."""
        rows = [(*map(_encodable, record.key), record.kind, _encodable(record.owner), record.at) for record in records]
        with self._using() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, rows)
            connection.execute("COMMIT")

    def owners(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, str]:
        """See ``ObjectStore.owners``. Raises ObjectStoreError."""
        with self._using() as connection:
            rows = {key: connection.execute(_OWNER, tuple(map(_encodable, key))).fetchone() for key in keys}
        return {key: row[0] for key, row in rows.items() if row is not None}

    def prune(self, before_ms: int, limit: int) -> int:
        """See ``ObjectStore.prune``. Raises ObjectStoreError."""
        with self._using() as connection:
            return connection.execute(_PRUNE, (before_ms, limit)).rowcount

    def close(self) -> None:
        """Closes the file. The next call of another method opens it again."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection of this process. A failure closes it, which rolls an open transaction back."""
        with self._lock:
            try:
                yield self._connection.get()
            except (sqlite3.Error, OSError) as error:
                self._connection.close()
                raise ObjectStoreError(f"the file of objects {self.path} cannot be used: {error}") from error


def _encodable(text: str) -> str:
    """Replaces what UTF-8 cannot hold: an upstream may send half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
