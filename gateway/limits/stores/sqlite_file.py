"""Reads and writes the SQLite file of counters: one row for each token, with all its counters.

Both stores use the same file, so that neither a restart nor another number of workers refills a budget.

Where several workers count, each counter also says how much of what is reserved belongs to which worker, so that the
reservations of a worker that died can be released.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.limits.algorithms import (
    MAX_COUNTER_VALUE,
    BudgetWindow,
    Charge,
    Limit,
    RequestsPerMinute,
    count_in_other_windows,
)
from gateway.limits.models import Counter, TokenCounters
from gateway.limits.store import Reservation, find_counter
from gateway.storage import sqlite

COUNTERS_FILE = "counters.sqlite"
VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (holder TEXT PRIMARY KEY, levels BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (id INTEGER PRIMARY KEY, seen_at INTEGER NOT NULL);
"""
Settlement = tuple[Reservation, Sequence[int]]
"""A reservation, and what was used of each of its charges."""
_SELECT = "SELECT levels FROM counters WHERE holder = ?"
_UPSERT = "INSERT INTO counters VALUES (?, ?) ON CONFLICT (holder) DO UPDATE SET levels = excluded.levels"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TokenCounters).decode


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Opens the file, and creates it if it does not exist. Raises OSError, sqlite3.Error."""
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
        self.is_corrected = False
        """Whether a counter was found whose time is in the future: it must be written, whatever happens to the request."""

    def counter(self, limit: Limit, now: int | None) -> Counter:
        """Returns the counter of a limit, refilled up to ``now`` (milliseconds) if that is given. Raises sqlite3.Error."""
        counters = self._counters(limit.token_id)
        if now is not None and (known := counters.get(limit.name)) is not None and known.at > now:
            self.is_corrected = True
        return find_counter(counters, limit, now)

    def _counters(self, token_id: str) -> TokenCounters:
        counters = self._tokens.get(token_id)
        if counters is None:
            counters = self._tokens[token_id] = read_token(self._connection, token_id)
        return counters

    def settle(self, settlements: Iterable[Settlement]) -> None:
        """Replaces what was reserved by what was used. Raises sqlite3.Error."""
        for reservation, actual in settlements:
            for charge, amount, used in zip(reservation.charges, reservation.amounts, actual, strict=True):
                self._settle(charge.limit, amount, used, reservation.worker)

    def _settle(self, limit: Limit, amount: int, used: int, worker: int) -> None:
        if not isinstance(limit, RequestsPerMinute):
            counter = self.counter(limit, None)
            limit.settle(counter, _release(counter, amount, worker), used)
            if used and isinstance(limit, BudgetWindow):
                count_in_other_windows(self._counters(limit.token_id), limit, used)
        elif used != amount:
            limit.settle(self.counter(limit, None), amount, used)

    def write(self) -> None:
        """Writes all rows that were read. Raises sqlite3.Error."""
        for token_id, counters in self._tokens.items():
            write_token(self._connection, token_id, counters)


def settle(connection: sqlite3.Connection, settlements: Iterable[Settlement]) -> None:
    """Writes settlements. Raises sqlite3.Error."""
    rows = CounterRows(connection)
    rows.settle(settlements)
    rows.write()


def reserve(charge: Charge, counter: Counter, amount: int, worker: int) -> None:
    """Reserves ``amount`` of a counter for a worker. Requests are counted at once, so that no worker has to give them back."""
    charge.limit.reserve(counter, amount)
    if not isinstance(charge.limit, RequestsPerMinute):
        if counter.reserved_by_worker is None:
            counter.reserved_by_worker = {}
        counter.reserved_by_worker[worker] = counter.reserved_by_worker.get(worker, 0) + amount


def release_dead_workers(connection: sqlite3.Connection) -> None:
    """Releases what is reserved by workers without a heartbeat in the table ``workers``. Raises sqlite3.Error."""
    alive = {worker for (worker,) in connection.execute("SELECT id FROM workers")}
    for token_id, counters in read_all(connection).items():
        is_changed = False
        for counter in counters.values():
            for worker in set(counter.reserved_by_worker or ()) - alive:
                is_changed = True
                counter.reserved = max(0, counter.reserved - _release(counter, MAX_COUNTER_VALUE, worker))
        if is_changed:
            write_token(connection, token_id, counters)


def _release(counter: Counter, amount: int, worker: int) -> int:
    """Takes ``amount`` off a worker's share of what is reserved, and returns how much of it was still reserved.

    That is less where the worker counted as dead meanwhile: what it had reserved is released already.
    """
    shares = counter.reserved_by_worker or {}
    share = shares.pop(worker, 0)
    if share > amount:
        shares[worker] = share - amount
    counter.reserved_by_worker = shares or None
    return min(share, amount)
