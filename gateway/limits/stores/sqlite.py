"""Counters in a file, exact over all workers of one machine. Nothing to install, nothing to start.

A transaction takes some ten microseconds, so it is tried on the event loop; where another process holds the file at that
moment, a thread waits for it instead. Settlements go with the next reservation, or alone a few milliseconds later: until then
what was reserved stays reserved. What a killed worker has reserved is given back when it has not been seen for a while.
"""

import asyncio
import logging
import random
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from gateway.limits.algorithms import MAX_COUNTER_VALUE, Charge, Counter, RequestsPerMinute
from gateway.limits.store import CounterStoreUnavailable, LimitExceeded, Reservation, decide
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite_file import CounterRows
from gateway.limits.stores.sqlite_transactions import DatabaseBusy, SqliteTransactions

log = logging.getLogger(__name__)

SEEN_SECONDS = 1.0
DEAD_SECONDS = 30.0
SETTLE_SECONDS = 0.005
FUTURE_MS = 60_000
"""Whoever was seen later than that was seen by a clock that has been set right since."""

T = TypeVar("T")
Settlement = tuple[Reservation, Sequence[int]]


class SqliteCounterStore:
    """For one worker of several. Used from the event loop; ``clock`` in seconds, the same for all workers."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._path = path
        self._worker = random.getrandbits(62)
        self._file = SqliteTransactions(path)
        self._pending: list[Settlement] = []
        self._is_settling_soon = False
        self._must_settle = asyncio.Event()
        self._is_known = False
        self.is_up = True

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        taken, self._pending = self._pending, []
        try:
            outcome = self._file.now(lambda connection: self._reserve(connection, taken, charges, now))
        except DatabaseBusy:
            self._pending = taken + self._pending
            return await self._reserve_soon(charges, now)
        except (sqlite3.Error, OSError) as error:
            self._pending = taken + self._pending
            raise self._down(error) from None
        self.is_up = True
        return outcome

    async def extend(self, reservation: Reservation, index: int, amount: int, now: int) -> bool:
        charge, worker = reservation.charges[index], reservation.worker

        def work(connection: sqlite3.Connection) -> bool:
            rows = CounterRows(connection)
            level = rows.counter(charge.limit, now)
            if amount > charge.limit.remaining(level):
                return False
            _take(charge, level, amount, worker)
            rows.write()
            return True

        def undo(done: "Future[bool]") -> None:
            if done.exception() is None and done.result():
                self._enqueue((Reservation(worker, [charge], [amount], [Counter()]), [0]))

        try:
            is_extended = self._file.now(work)
        except DatabaseBusy:
            is_extended = await self._soon(work, undo)
        except (sqlite3.Error, OSError) as error:
            raise self._down(error) from None
        if is_extended:
            reservation.amounts[index] += amount
        return is_extended

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        known = zip(reservation.charges, reservation.counters, reservation.amounts, actual, strict=True)
        for charge, level, amount, used in known:
            charge.limit.settle(level, amount, used)  # what the request's own answer tells of
        if not _is_settled_already(reservation, actual):
            self._enqueue((reservation, actual))

    async def read(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        try:
            rows = _settled(CounterRows(self._file.reader()), self._pending)
            return [rows.counter(charge.limit, now) for charge in charges]
        except (sqlite3.Error, OSError) as error:
            raise self._down(error) from None

    @property
    def pending(self) -> int:
        return len(self._pending)

    async def run(self) -> None:
        """Settle what could not be settled on the loop, and show that this worker lives."""
        await self._kept(self._heartbeat)
        while True:
            try:
                async with asyncio.timeout(SEEN_SECONDS):
                    await self._must_settle.wait()
            except TimeoutError:
                self._told(await self._file.finish_and_checkpoint(self._heartbeat))
            await self._flush_in_thread()
            if self._must_settle.is_set():
                await asyncio.sleep(SEEN_SECONDS)  # the file is out of order: it is not asked again and again

    async def flush(self) -> None:
        await self._flush_in_thread()

    async def aclose(self) -> None:
        await self._flush_in_thread()
        if self._pending:
            log.error("settlements lost at shutdown", extra={"count": len(self._pending)})
        await self._kept(lambda connection: connection.execute("DELETE FROM workers WHERE id = ?", (self._worker,)))
        self._file.close()

    async def _reserve_soon(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        def undo(done: "Future[Reservation | LimitExceeded]") -> None:
            if done.exception() is None and isinstance(reservation := done.result(), Reservation):
                self._enqueue((reservation, [0] * len(charges)))

        return await self._soon(lambda connection: self._reserve(connection, (), charges, now), undo)

    async def _soon(self, work: Callable[[sqlite3.Connection], T], undo: "Callable[[Future[T]], None]") -> T:
        try:
            return await self._file.soon(work, undo)
        except (sqlite3.Error, OSError) as error:
            raise self._down(error) from None

    def _reserve(
        self, connection: sqlite3.Connection, late: Sequence[Settlement], charges: Sequence[Charge], now: int
    ) -> Reservation | LimitExceeded:
        if not self._is_known:
            self._heartbeat(connection)
        rows = _settled(CounterRows(connection), late)
        found = [rows.counter(charge.limit, now) for charge in charges]
        amounts = decide(charges, found, now)
        if isinstance(amounts, LimitExceeded):
            if late:
                rows.write()
            return amounts
        for charge, level, amount in zip(charges, found, amounts, strict=True):
            _take(charge, level, amount, self._worker)
        rows.write()
        return Reservation(self._worker, charges, amounts, found)

    def _enqueue(self, settlement: Settlement) -> None:
        self._pending.append(settlement)
        if not self._is_settling_soon:
            self._is_settling_soon = True
            asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._flush_on_loop)

    def _flush_on_loop(self) -> None:
        self._is_settling_soon = False
        taken, self._pending = self._pending, []
        try:
            if taken:
                self._file.now(lambda connection: _settled(CounterRows(connection), taken).write())
        except DatabaseBusy:
            self._keep_for_thread(taken)
        except (sqlite3.Error, OSError) as error:
            self._down(error)
            self._keep_for_thread(taken)

    async def _flush_in_thread(self) -> None:
        self._must_settle.clear()
        taken, self._pending = self._pending, []
        if taken and not await self._kept(lambda connection: _settled(CounterRows(connection), taken).write()):
            self._keep_for_thread(taken)

    def _keep_for_thread(self, taken: list[Settlement]) -> None:
        self._pending = taken + self._pending
        self._must_settle.set()

    async def _kept(self, work: Callable[[sqlite3.Connection], object]) -> bool:
        """Whether the work is done."""
        return self._told(await self._file.finish(work))

    def _told(self, error: BaseException | None) -> bool:
        if error is not None:
            self._down(error)
        else:
            self.is_up = True
        return error is None

    def _heartbeat(self, connection: sqlite3.Connection) -> None:
        """Be seen, and give back what the dead have reserved."""
        now = int(self._clock() * 1000)
        dead = now - int(DEAD_SECONDS * 1000)
        gone = connection.execute(
            "DELETE FROM workers WHERE seen_at < ? OR seen_at > ? RETURNING id", (dead, now + FUTURE_MS)
        ).fetchall()
        if (self._worker,) in gone:
            # It stood still for so long that it was taken for dead: what it has reserved is not reserved any more.
            self._worker = random.getrandbits(62)
        connection.execute("INSERT OR REPLACE INTO workers VALUES (?, ?)", (self._worker, now))
        if gone or not self._is_known:
            _release_dead_workers(connection)
        self._is_known = True

    def _down(self, error: BaseException) -> CounterStoreUnavailable:
        if self.is_up:
            log.error("the counters cannot be reached", extra={"file": self._path, "problem": str(error)})
        self.is_up = False
        return CounterStoreUnavailable(str(error))


def _take(charge: Charge, level: Counter, amount: int, worker: int) -> None:
    charge.limit.reserve(level, amount)
    if not isinstance(charge.limit, RequestsPerMinute):
        if level.reserved_by_worker is None:
            level.reserved_by_worker = {}
        level.reserved_by_worker[worker] = level.reserved_by_worker.get(worker, 0) + amount


def _settled(rows: CounterRows, settlements: Iterable[Settlement]) -> CounterRows:
    for reservation, actual in settlements:
        for charge, amount, used in zip(reservation.charges, reservation.amounts, actual, strict=True):
            limit = charge.limit
            is_of_requests = isinstance(limit, RequestsPerMinute)
            if is_of_requests and used == amount:
                continue
            level = rows.counter(limit, None)
            held = amount if is_of_requests else _let_go(level, amount, reservation.worker)
            limit.settle(level, held, used)
    return rows


def _let_go(level: Counter, amount: int, worker: int) -> int:
    """How much of it is still held: nothing any more by a worker that was taken for dead."""
    reserved_by_worker = level.reserved_by_worker or {}
    share = reserved_by_worker.pop(worker, 0)
    if share > amount:
        reserved_by_worker[worker] = share - amount
    level.reserved_by_worker = reserved_by_worker or None
    return min(share, amount)


def _release_dead_workers(connection: sqlite3.Connection) -> None:
    """What is reserved by workers that are not there any more."""
    alive = {number for (number,) in connection.execute("SELECT id FROM workers")}
    for token_id, counters in sqlite_file.read_all(connection).items():
        is_changed = False
        for level in counters.values():
            for worker in set(level.reserved_by_worker or ()) - alive:
                is_changed = True
                level.reserved = max(0, level.reserved - _let_go(level, MAX_COUNTER_VALUE, worker))
        if is_changed:
            sqlite_file.write_token(connection, token_id, counters)


def _is_settled_already(reservation: Reservation, actual: Sequence[int]) -> bool:
    """Requests are counted once for all when they are reserved."""
    return all(
        isinstance(charge.limit, RequestsPerMinute) and used == amount
        for charge, amount, used in zip(reservation.charges, reservation.amounts, actual, strict=True)
    )
