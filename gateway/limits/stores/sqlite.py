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

from gateway.limits.algorithms import LARGEST, Charge, Counter, RequestsPerMinute
from gateway.limits.store import CounterStoreUnavailable, LimitExceeded, Reservation, decide
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite_rows import Rows
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

    name = "sqlite"

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._path = path
        self._worker = random.getrandbits(62)
        self._file = SqliteTransactions(path)
        self._late: list[Settlement] = []
        self._is_settling_soon = False
        self._must_settle = asyncio.Event()
        self._is_known = False
        self.is_up = True

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        taken, self._late = self._late, []
        try:
            outcome = self._file.now(lambda connection: self._reserve(connection, taken, charges, now))
        except DatabaseBusy:
            self._late = taken + self._late
            return await self._reserve_soon(charges, now)
        except (sqlite3.Error, OSError) as error:
            self._late = taken + self._late
            raise self._down(error) from None
        self.is_up = True
        return outcome

    async def extend(self, reservation: Reservation, place: int, amount: int, now: int) -> bool:
        charge, worker = reservation.charges[place], reservation.worker

        def work(connection: sqlite3.Connection) -> bool:
            rows = Rows(connection)
            level = rows.level(charge.limit, now)
            if amount > charge.limit.left(level):
                return False
            _take(charge, level, amount, worker)
            rows.write()
            return True

        def undo(done: "Future[bool]") -> None:
            if done.exception() is None and done.result():
                self._later((Reservation(worker, [charge], [amount], [Counter()]), [0]))

        try:
            is_extended = self._file.now(work)
        except DatabaseBusy:
            is_extended = await self._soon(work, undo)
        except (sqlite3.Error, OSError) as error:
            raise self._down(error) from None
        if is_extended:
            reservation.amounts[place] += amount
        return is_extended

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        known = zip(reservation.charges, reservation.counters, reservation.amounts, actual, strict=True)
        for charge, level, amount, used in known:
            charge.limit.settle(level, amount, used)  # what the request's own answer tells of
        if not _is_settled_already(reservation, actual):
            self._later((reservation, actual))

    async def counters(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        try:
            rows = _settled(Rows(self._file.reader()), self._late)
            return [rows.level(charge.limit, now) for charge in charges]
        except (sqlite3.Error, OSError) as error:
            raise self._down(error) from None

    @property
    def waiting(self) -> int:
        return len(self._late)

    async def run(self) -> None:
        """Settle what could not be settled on the loop, and show that this worker lives."""
        await self._kept(self._keep_house)
        while True:
            try:
                async with asyncio.timeout(SEEN_SECONDS):
                    await self._must_settle.wait()
            except TimeoutError:
                self._told(await self._file.finish_and_checkpoint(self._keep_house))
            await self._settle_there()
            if self._must_settle.is_set():
                await asyncio.sleep(SEEN_SECONDS)  # the file is out of order: it is not asked again and again

    async def aclose(self) -> None:
        await self._settle_there()
        if self._late:
            log.error("settlements lost at shutdown", extra={"count": len(self._late)})
        await self._kept(lambda connection: connection.execute("DELETE FROM workers WHERE id = ?", (self._worker,)))
        self._file.close()

    async def _reserve_soon(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        def undo(done: "Future[Reservation | LimitExceeded]") -> None:
            if done.exception() is None and isinstance(reservation := done.result(), Reservation):
                self._later((reservation, [0] * len(charges)))

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
            self._keep_house(connection)
        rows = _settled(Rows(connection), late)
        found = [rows.level(charge.limit, now) for charge in charges]
        amounts = decide(charges, found, now)
        if isinstance(amounts, LimitExceeded):
            if late:
                rows.write()
            return amounts
        for charge, level, amount in zip(charges, found, amounts, strict=True):
            _take(charge, level, amount, self._worker)
        rows.write()
        return Reservation(self._worker, charges, amounts, found)

    def _later(self, settlement: Settlement) -> None:
        self._late.append(settlement)
        if not self._is_settling_soon:
            self._is_settling_soon = True
            asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._settle_here)

    def _settle_here(self) -> None:
        self._is_settling_soon = False
        taken, self._late = self._late, []
        try:
            if taken:
                self._file.now(lambda connection: _settled(Rows(connection), taken).write())
        except DatabaseBusy:
            self._keep_for_thread(taken)
        except (sqlite3.Error, OSError) as error:
            self._down(error)
            self._keep_for_thread(taken)

    async def _settle_there(self) -> None:
        self._must_settle.clear()
        taken, self._late = self._late, []
        if taken and not await self._kept(lambda connection: _settled(Rows(connection), taken).write()):
            self._keep_for_thread(taken)

    def _keep_for_thread(self, taken: list[Settlement]) -> None:
        self._late = taken + self._late
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

    def _keep_house(self, connection: sqlite3.Connection) -> None:
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
            _give_back_lost(connection)
        self._is_known = True

    def _down(self, error: BaseException) -> CounterStoreUnavailable:
        if self.is_up:
            log.error("the counters cannot be reached", extra={"file": self._path, "problem": str(error)})
        self.is_up = False
        return CounterStoreUnavailable(str(error))


def _take(charge: Charge, level: Counter, amount: int, worker: int) -> None:
    charge.limit.take(level, amount)
    if not isinstance(charge.limit, RequestsPerMinute):
        if level.shares is None:
            level.shares = {}
        level.shares[worker] = level.shares.get(worker, 0) + amount


def _settled(rows: Rows, settlements: Iterable[Settlement]) -> Rows:
    for reservation, actual in settlements:
        for charge, amount, used in zip(reservation.charges, reservation.amounts, actual, strict=True):
            limit = charge.limit
            is_of_requests = isinstance(limit, RequestsPerMinute)
            if is_of_requests and used == amount:
                continue
            level = rows.level(limit, None)
            held = amount if is_of_requests else _let_go(level, amount, reservation.worker)
            limit.settle(level, held, used)
    return rows


def _let_go(level: Counter, amount: int, worker: int) -> int:
    """How much of it is still held: nothing any more by a worker that was taken for dead."""
    shares = level.shares or {}
    share = shares.pop(worker, 0)
    if share > amount:
        shares[worker] = share - amount
    level.shares = shares or None
    return min(share, amount)


def _give_back_lost(connection: sqlite3.Connection) -> None:
    """What is reserved by workers that are not there any more."""
    alive = {number for (number,) in connection.execute("SELECT id FROM workers")}
    for holder, counters in sqlite_file.read_all(connection).items():
        is_changed = False
        for level in counters.values():
            for worker in set(level.shares or ()) - alive:
                is_changed = True
                level.reserved = max(0, level.reserved - _let_go(level, LARGEST, worker))
        if is_changed:
            sqlite_file.put(connection, holder, counters)


def _is_settled_already(reservation: Reservation, actual: Sequence[int]) -> bool:
    """Requests are counted once for all when they are reserved."""
    return all(
        isinstance(charge.limit, RequestsPerMinute) and used == amount
        for charge, amount, used in zip(reservation.charges, reservation.amounts, actual, strict=True)
    )
