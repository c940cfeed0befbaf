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
    MAX_CLOCK_SKEW_MS,
    MAX_COUNTER_VALUE,
    BudgetWindow,
    Charge,
    Limit,
    RequestsPerMinute,
    count_in_other_windows,
)
from gateway.limits.leases import (
    CounterChange,
    LeaseRequest,
    RenewedLease,
    counters_behind_leases,
    lease_id,
    new_worker_id,
    renewed_amount,
)
from gateway.limits.models import Counter, TokenCounters
from gateway.limits.store import Reservation, find_counter
from gateway.storage import sqlite

COUNTERS_FILE = "counters.sqlite"
DEAD_AFTER_SECONDS = 30.0
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

    def apply(self, changes: Iterable[CounterChange], worker: int) -> None:
        """Makes changes that a worker has collected. Raises sqlite3.Error.

        Nothing is reserved for the id that it had before it counted as dead: nobody would release it.
        """
        for change in changes:
            limit, counter = change.limit, self.counter(change.limit, None)
            if change.at > counter.at:
                limit.refill(counter, change.at)
            if change.leased:
                _add(counter, change.leased, lease_id(change.worker))
            if change.reserved < 0 or change.worker == worker:
                _add(counter, change.reserved, change.worker)
            if change.used:
                limit.settle(counter, 0, change.used)
                if isinstance(limit, BudgetWindow):
                    count_in_other_windows(self._counters(limit.token_id), limit, change.used)

    def renew(self, request: LeaseRequest, worker: int, now: int) -> RenewedLease:
        """Changes a lease, and returns it. ``now`` is the time up to which rates are paid back. Raises sqlite3.Error."""
        counter = self.counter(request.limit, now)
        current = (counter.reserved_by_worker or {}).get(lease_id(worker), 0)  # 0 where the worker counted as dead
        amount = renewed_amount(request._replace(current=min(current, request.current)), counter, now)
        _add(counter, amount - min(current, request.current), lease_id(worker))
        return RenewedLease(amount, msgspec.structs.replace(counter, reserved=counter.reserved - amount))

    def mark_wanted(self, charges: Sequence[Charge], counters: Sequence[Counter], now: int) -> bool:
        """Notes on counters that a charge does not fit beside leases, and returns whether there are any."""
        wanted = counters_behind_leases(charges, counters)
        for counter in wanted:
            counter.wanted_at = now
        return bool(wanted)

    def write(self) -> None:
        """Writes all rows that were read. Raises sqlite3.Error."""
        for token_id, counters in self._tokens.items():
            write_token(self._connection, token_id, counters)


def apply(connection: sqlite3.Connection, changes: Iterable[CounterChange], worker: int) -> None:
    """Writes changes that a worker has collected. Raises sqlite3.Error."""
    rows = CounterRows(connection)
    rows.apply(changes, worker)
    rows.write()


def changes_of(reservation: Reservation, actual: Sequence[int]) -> list[CounterChange]:
    """Returns what settling a reservation changes. Requests are counted already: nothing where they were made."""
    found = []
    for charge, amount, used in zip(reservation.charges, reservation.amounts, actual, strict=True):
        if not isinstance(charge.limit, RequestsPerMinute):
            found.append(CounterChange(charge.limit, reservation.worker, 0, -amount, used))
        elif used != amount:
            found.append(CounterChange(charge.limit, reservation.worker, 0, 0, used - amount))
    return found


def reserve(charge: Charge, counter: Counter, amount: int, worker: int) -> None:
    """Reserves ``amount`` of a counter for a worker. Requests are counted at once, so that no worker has to give them back."""
    if isinstance(charge.limit, RequestsPerMinute):
        charge.limit.reserve(counter, amount)
    else:
        _add(counter, amount, worker)


def keep_worker(connection: sqlite3.Connection, worker: int, now: int, *, is_new: bool) -> int:
    """Writes that a worker is alive at ``now`` (milliseconds since the epoch), and releases what dead workers have reserved.

    Returns the id of the worker: another one where it was stopped for so long that it counts as dead. Raises sqlite3.Error.
    """
    dead = connection.execute(
        "DELETE FROM workers WHERE seen_at < ? OR seen_at > ? RETURNING id",
        (now - int(DEAD_AFTER_SECONDS * 1000), now + MAX_CLOCK_SKEW_MS),
    ).fetchall()
    if (worker,) in dead:
        worker = new_worker_id()
    connection.execute("INSERT OR REPLACE INTO workers VALUES (?, ?)", (worker, now))
    if dead or is_new:
        release_dead_workers(connection)
    return worker


def release_dead_workers(connection: sqlite3.Connection) -> None:
    """Releases what is reserved by workers without a heartbeat in the table ``workers``. Raises sqlite3.Error."""
    alive = {one for (worker,) in connection.execute("SELECT id FROM workers") for one in (worker, lease_id(worker))}
    for token_id, counters in read_all(connection).items():
        is_changed = False
        for counter in counters.values():
            for worker in set(counter.reserved_by_worker or ()) - alive:
                is_changed = True
                counter.reserved = max(0, counter.reserved - _release(counter, MAX_COUNTER_VALUE, worker))
        if is_changed:
            write_token(connection, token_id, counters)


def _add(counter: Counter, amount: int, worker: int) -> None:
    """Adds to what a worker has reserved; a negative amount is given back."""
    if amount <= 0:
        counter.reserved = max(0, counter.reserved - _release(counter, -amount, worker))
        return
    counter.reserved += amount
    if counter.reserved_by_worker is None:
        counter.reserved_by_worker = {}
    counter.reserved_by_worker[worker] = counter.reserved_by_worker.get(worker, 0) + amount


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
