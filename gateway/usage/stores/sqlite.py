"""The ledger on disk: each request once, and sums by the hour. Blocking; any number of processes may use one file."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from operator import add
from pathlib import Path

from gateway.storage import sqlite
from gateway.storage.sqlite import WrongVersion
from gateway.usage.models import LedgerEntry

LEDGER_FILE = "usage.sqlite"
"""Its name in the folder for what the gateway itself writes."""

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
HOUR = 3600
LARGEST = 10**12
"""No single amount is taken for more than this: what an upstream makes up must not make sums overflow 64 bits."""

PRUNED_AT_ONCE = 5000

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

SUMS = (
    "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost", "errors", "partial",
    "estimated",
)  # fmt: skip
"""The columns of ``hours`` that are added up. ``cost`` in micro-dollars."""

_INSERT = f"INSERT INTO entries VALUES ({', '.join('?' * 20)}) ON CONFLICT (request_id) DO NOTHING"  # noqa: S608
_ADD = (
    f"INSERT INTO hours VALUES ({', '.join('?' * (4 + len(SUMS)))})"  # noqa: S608
    " ON CONFLICT (hour_start_seconds, token_id, owner, model) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
)
_PRUNE = "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries WHERE at < ? LIMIT ?)"

HourKey = tuple[int, str, str, str]
"""The start of the hour in seconds since the epoch, token id, owner, model. An empty text where there is none."""


class UsageStoreError(OSError):
    """The ledger cannot be read or written."""


class SqliteUsageStore:
    """One file. Made before a fork or after it, it opens the file at its first use, in the process that uses it."""

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = path
        self._busy_seconds = busy_seconds
        self._lock = threading.Lock()
        self._writer = sqlite.ReopeningConnection(
            path, lambda: sqlite.connect(path, _SCHEMA, SCHEMA_VERSION, busy_seconds)
        )

    def write(self, entries: Sequence[LedgerEntry]) -> int:
        """Add them in one transaction. What is there already, by its request id, is neither added nor counted again.

        Answers how many were new. Raises OSError; then nothing was written, unless the disk itself failed at the end.
        """
        with self._writing() as connection:
            connection.execute("BEGIN IMMEDIATE")
            new = _insert(connection, entries)
            hours: dict[HourKey, list[int]] = {}
            for entry in new:
                key, amounts = _hour(entry)
                before = hours.get(key)
                hours[key] = amounts if before is None else list(map(add, before, amounts))
            connection.executemany(_ADD, [(*key, *sums) for key, sums in hours.items()])
            connection.execute("COMMIT")
        return len(new)

    def prune(self, before: int) -> int:
        """Remove single entries that began before this, in milliseconds since the epoch. The sums by the hour stay.

        Answers how many were removed. Raises OSError.
        """
        removed = 0
        while (count := self.prune_some(before)) == PRUNED_AT_ONCE:
            removed += count
        return removed + count

    def prune_some(self, before: int) -> int:
        """The same for at most PRUNED_AT_ONCE of them: others want to write meanwhile."""
        with self._writing() as connection:
            return connection.execute(_PRUNE, (before, PRUNED_AT_ONCE)).rowcount

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection that changes nothing and sees one moment; None where nothing has been written yet.

        Raises OSError, and makes one of every sqlite3.Error within.
        """
        with self._told():
            # Asked of the path: opened for reading alone, SQLite says of an absent file only that it cannot be opened.
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
                # Without a version it has just been made, and has no tables yet.
                yield connection if version else None

    def close(self) -> None:
        """It opens again when it is used again."""
        with self._lock:
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The connection of this process. A failure ends it, which takes an open transaction back."""
        with self._lock, self._told():
            try:
                yield self._writer.get()
            except BaseException:
                self._writer.close()
                raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UsageStoreError(f"the ledger {self.path} cannot be used: {error}") from error


def _insert(connection: sqlite3.Connection, entries: Sequence[LedgerEntry]) -> Sequence[LedgerEntry]:
    """Those that were not there. All at once, as nearly always all of them are new; else one by one."""
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
        _text(entry.request_id), entry.at, _text(entry.token_id), _text_or_none(entry.owner), _text_or_none(entry.model),
        _text(entry.deployment), _text(entry.endpoint), entry.status,
        _amount(usage.prompt_tokens), _amount(usage.completion_tokens), _amount(usage.cached_tokens),
        _amount(usage.cache_write_tokens), _amount(usage.reasoning_tokens), _amount(usage.audio_prompt_tokens),
        _amount(usage.audio_completion_tokens), _amount(entry.cost), _amount(entry.duration_ms),
        None if entry.first_byte_ms is None else _amount(entry.first_byte_ms), int(entry.partial), int(entry.estimated),
    )  # fmt: skip


def _hour(entry: LedgerEntry) -> tuple[HourKey, list[int]]:
    """Where it is added up, and what it adds in the order of ``SUMS``."""
    usage = entry.usage
    # An empty text, because to a key two NULLs are two different things.
    owner, model = _text(entry.owner or ""), _text(entry.model or "")
    amounts = [
        1, _amount(usage.prompt_tokens), _amount(usage.completion_tokens), _amount(usage.cached_tokens),
        _amount(usage.reasoning_tokens), _amount(entry.cost), int(entry.status >= 400), int(entry.partial),
        int(entry.estimated),
    ]  # fmt: skip
    return (entry.at // (HOUR * 1000) * HOUR, _text(entry.token_id), owner, model), amounts


def _amount(number: int) -> int:
    return number if 0 <= number <= LARGEST else min(max(number, 0), LARGEST)


def _text(text: str) -> str:
    """Half a surrogate pair can be read from a token file, and not be written: one such name must not hold up the rest."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _text_or_none(text: str | None) -> str | None:
    return None if text is None else _text(text)
