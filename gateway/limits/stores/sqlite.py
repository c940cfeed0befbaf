"""Keeps counters in an SQLite file that all workers of one machine share, with exact sums over all of them.

A transaction takes some ten microseconds, so it is tried on the event loop; where another process is writing at that
moment, a thread waits instead. Settlements are written with the next reservation, or on their own a few milliseconds later;
until then what was reserved stays reserved. What a killed worker had reserved is released when it has sent no heartbeat for
a while.
"""

import asyncio
import logging
import random
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from gateway.limits.algorithms import MAX_CLOCK_SKEW_MS, Charge, RequestsPerMinute
from gateway.limits.models import Counter
from gateway.limits.store import CounterStoreUnavailable, LimitExceeded, RateClock, Reservation, decide
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite_file import CounterRows, Settlement
from gateway.limits.stores.sqlite_transactions import DatabaseBusy, SqliteTransactions, Work

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
DEAD_AFTER_SECONDS = 30.0
FLUSH_SECONDS = 0.005
T = TypeVar("T")


class SqliteCounterStore:
    """Counts for one worker of several. Its methods are called on the event loop.

    ``clock`` returns seconds since the epoch and is the same for all workers. ``transactions`` are those on the file;
    without them the store makes its own.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        transactions: SqliteTransactions | None = None,
        rate_clock: RateClock | None = None,
    ) -> None:
        self._rate_clock = rate_clock
        self._clock = clock
        self._path = path
        self._worker = random.getrandbits(62)
        self._transactions = transactions or SqliteTransactions(path)
        self._pending: list[Settlement] = []
        self._is_flush_scheduled = False
        self._thread_must_flush = asyncio.Event()
        self._is_registered = False
        self.is_up = True

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        """Reserves all charges in one transaction, or none. Raises CounterStoreUnavailable if the file cannot be used."""
        settlements = self._take_pending()
        try:
            outcome = self._transactions.run_on_loop(lambda conn: self._reserve(conn, settlements, charges, now))
        except DatabaseBusy:
            self._put_back(settlements)
            return await self._reserve_in_thread(charges, now)
        except (sqlite3.Error, OSError) as error:
            self._put_back(settlements)
            raise self._report_failure(error) from None
        self.is_up = True
        return outcome

    async def extend(self, reservation: Reservation, index: int, amount: int, now: int) -> bool:
        """Adds to one charge of a reservation if its limit allows it.

        Raises CounterStoreUnavailable if the file cannot be used.
        """
        charge, worker, rate_now = reservation.charges[index], reservation.worker, self._rate_now(now)

        def work(connection: sqlite3.Connection) -> bool:
            rows = CounterRows(connection)
            counter = rows.counter(charge.limit, rate_now)
            if amount > charge.limit.remaining(counter):
                return False
            sqlite_file.reserve(charge, counter, amount, worker)
            rows.write()
            return True

        def undo(done: "Future[bool]") -> None:
            if done.exception() is None and done.result():
                self._enqueue((Reservation(worker, [charge], [amount], [Counter()], now), [0]))

        try:
            is_extended = self._transactions.run_on_loop(work)
        except DatabaseBusy:
            is_extended = await self._run_in_thread(work, undo)
        except (sqlite3.Error, OSError) as error:
            raise self._report_failure(error) from None
        if is_extended:
            reservation.amounts[index] += amount
        return is_extended

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        known = zip(reservation.charges, reservation.counters, reservation.amounts, actual, strict=True)
        for charge, counter, amount, used in known:
            charge.limit.settle(counter, amount, used)  # the request's own copy, which its response headers show
        if not _is_written(reservation, actual):
            self._enqueue((reservation, actual))

    async def read(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        """Reads the counters of these charges. Raises CounterStoreUnavailable if the file cannot be used."""
        try:
            rows, rate_now = CounterRows(self._transactions.loop_connection()), self._rate_now(now)
            rows.settle(self._pending)
            return [rows.counter(charge.limit, rate_now) for charge in charges]
        except (sqlite3.Error, OSError) as error:
            raise self._report_failure(error) from None

    @property
    def problem(self) -> str | None:
        if self.is_up:
            return None
        return "the counters of limits cannot be read or written; tokens with limits are refused until then"

    def _rate_now(self, now: int) -> int:
        """Returns the time up to which rates are paid back."""
        return now if self._rate_clock is None else int(self._rate_clock() * 1000)

    @property
    def pending(self) -> int:
        """The number of settlements that are not written yet."""
        return len(self._pending)

    async def run(self) -> None:
        """Sends heartbeats, and flushes what could not be written on the loop, until cancelled."""
        await self.heartbeat()
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._thread_must_flush.wait()
            except TimeoutError:
                await self.heartbeat()
            await self.flush()
            if self._thread_must_flush.is_set():
                await asyncio.sleep(HEARTBEAT_SECONDS)  # the file cannot be written: do not try again at once

    async def heartbeat(self) -> None:
        """Writes that this worker is alive, and releases what dead workers have reserved."""
        self._note_result(await self._transactions.run_and_checkpoint(self._heartbeat))

    async def flush(self) -> None:
        await self._flush_in_thread()

    async def aclose(self) -> None:
        await self.flush()
        if self._pending:
            log.error("settlements lost at shutdown", extra={"count": len(self._pending)})
        await self._complete(lambda conn: conn.execute("DELETE FROM workers WHERE id = ?", (self._worker,)))
        self._transactions.close()

    async def _reserve_in_thread(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        def undo(done: "Future[Reservation | LimitExceeded]") -> None:
            if done.exception() is None and isinstance(reservation := done.result(), Reservation):
                self._enqueue((reservation, [0] * len(charges)))

        return await self._run_in_thread(lambda conn: self._reserve(conn, (), charges, now), undo)

    async def _run_in_thread(self, work: Work[T], undo: "Callable[[Future[T]], None]") -> T:
        try:
            return await self._transactions.run_in_thread(work, undo)
        except (sqlite3.Error, OSError) as error:
            raise self._report_failure(error) from None

    def _reserve(
        self,
        connection: sqlite3.Connection,
        settlements: Sequence[Settlement],
        charges: Sequence[Charge],
        now: int,
    ) -> Reservation | LimitExceeded:
        if not self._is_registered:
            self._heartbeat(connection)
        rows, rate_now = CounterRows(connection), self._rate_now(now)
        rows.settle(settlements)
        counters = [rows.counter(charge.limit, rate_now) for charge in charges]
        amounts = decide(charges, counters, now)
        if isinstance(amounts, LimitExceeded):
            if settlements or rows.is_corrected:
                rows.write()
            return amounts
        for charge, counter, amount in zip(charges, counters, amounts, strict=True):
            sqlite_file.reserve(charge, counter, amount, self._worker)
        rows.write()
        return Reservation(self._worker, charges, amounts, counters, now)

    def _enqueue(self, settlement: Settlement) -> None:
        self._pending.append(settlement)
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_on_loop)

    def _take_pending(self) -> list[Settlement]:
        settlements, self._pending = self._pending, []
        return settlements

    def _put_back(self, settlements: list[Settlement]) -> None:
        self._pending = settlements + self._pending

    def _flush_on_loop(self) -> None:
        self._is_flush_scheduled = False
        settlements = self._take_pending()
        try:
            if settlements:
                self._transactions.run_on_loop(lambda conn: sqlite_file.settle(conn, settlements))
        except DatabaseBusy:
            self._leave_to_thread(settlements)
        except (sqlite3.Error, OSError) as error:
            self._report_failure(error)
            self._leave_to_thread(settlements)

    async def _flush_in_thread(self) -> None:
        self._thread_must_flush.clear()
        settlements = self._take_pending()
        if settlements and not await self._complete(lambda conn: sqlite_file.settle(conn, settlements)):
            self._leave_to_thread(settlements)

    def _leave_to_thread(self, settlements: list[Settlement]) -> None:
        self._put_back(settlements)
        self._thread_must_flush.set()

    async def _complete(self, work: Work[object]) -> bool:
        """Runs work in the thread to its end and returns whether it succeeded."""
        return self._note_result(await self._transactions.run_to_completion(work))

    def _note_result(self, error: BaseException | None) -> bool:
        if error is None:
            self.is_up = True
        else:
            self._report_failure(error)
        return error is None

    def _heartbeat(self, connection: sqlite3.Connection) -> None:
        now = int(self._clock() * 1000)
        dead = connection.execute(
            "DELETE FROM workers WHERE seen_at < ? OR seen_at > ? RETURNING id",
            (now - int(DEAD_AFTER_SECONDS * 1000), now + MAX_CLOCK_SKEW_MS),
        ).fetchall()
        if (self._worker,) in dead:
            # It was stopped for so long that it counts as dead, and its reservations are released. Go on as a new one.
            self._worker = random.getrandbits(62)
        connection.execute("INSERT OR REPLACE INTO workers VALUES (?, ?)", (self._worker, now))
        if dead or not self._is_registered:
            sqlite_file.release_dead_workers(connection)
        self._is_registered = True

    def _report_failure(self, error: BaseException) -> CounterStoreUnavailable:
        """Logs the first of several failures in a row and returns the exception to raise."""
        if self.is_up:
            log.error("the counters cannot be reached", extra={"file": self._path, "problem": str(error)})
        self.is_up = False
        return CounterStoreUnavailable(str(error))


def _is_written(reservation: Reservation, actual: Sequence[int]) -> bool:
    """Returns whether the file has everything already: requests are counted when they are reserved."""
    return all(
        isinstance(charge.limit, RequestsPerMinute) and used == amount
        for charge, amount, used in zip(reservation.charges, reservation.amounts, actual, strict=True)
    )
