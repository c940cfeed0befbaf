"""Keeps counters in an SQLite file that all workers of one machine share, with exact sums over all of them.

A transaction takes some ten microseconds, so it is tried on the event loop; where another process is writing at that
moment, a thread waits instead. Settlements are written with the next reservation, or on their own a few milliseconds later;
until then what was reserved stays reserved. What a killed worker had reserved is released when it has sent no heartbeat for
a while.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from gateway.limits.algorithms import Charge
from gateway.limits.leases import CounterChange, LeaseRequest, RenewedLease, new_worker_id
from gateway.limits.models import Counter
from gateway.limits.store import CounterStoreUnavailable, LimitExceeded, RateClock, Reservation, decide
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite_file import CounterRows, changes_of
from gateway.limits.stores.sqlite_transactions import DatabaseBusy, SqliteTransactions, Work

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
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
        self._worker = new_worker_id()
        self._transactions = transactions or SqliteTransactions(path)
        self._pending: list[CounterChange] = []
        self._is_flush_scheduled = False
        self._thread_turn = asyncio.Lock()
        """Is held while the thread writes changes. Later ones wait for them: what is given back was reserved before."""
        self._thread_must_flush = asyncio.Event()
        self._is_registered = False
        self.is_up = True

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        """Reserves all charges in one transaction, or none. Raises CounterStoreUnavailable if the file cannot be used."""
        changes = self._take_pending()
        try:
            outcome = self._transactions.run_on_loop(lambda conn: self._reserve(conn, changes, charges, now))
        except DatabaseBusy:
            self._put_back(changes)
            return await self._reserve_in_thread(charges, now)
        except (sqlite3.Error, OSError) as error:
            self._put_back(changes)
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
                if rows.mark_wanted([Charge(charge.limit, amount, amount)], [counter], rate_now):
                    rows.write()
                return False
            sqlite_file.reserve(charge, counter, amount, worker)
            rows.write()
            return True

        def undo(done: "Future[bool]") -> None:
            if done.exception() is None and done.result():
                self.apply(changes_of(Reservation(worker, [charge], [amount], [Counter()], now), [0]))

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
        self.apply(changes_of(reservation, actual))

    @property
    def worker(self) -> int:
        """The id under which this worker reserves. Another one where the worker counted as dead meanwhile."""
        return self._worker

    def apply(self, changes: Sequence[CounterChange]) -> None:
        """See ``SharedCounterStore.apply``."""
        self._pending += changes
        self._schedule_flush()

    async def renew(self, requests: Sequence[LeaseRequest], now: int) -> list[RenewedLease]:
        """See ``SharedCounterStore.renew``. Raises CounterStoreUnavailable."""
        rate_now = self._rate_now(now)
        renewed: list[RenewedLease] = []

        def work(connection: sqlite3.Connection, changes: Sequence[CounterChange]) -> None:
            rows = self._rows(connection, changes)
            renewed[:] = [rows.renew(request, self._worker, rate_now) for request in requests]
            rows.write()

        error: BaseException | None = None
        changes = self._take_pending()
        try:
            self._transactions.run_on_loop(lambda conn: work(conn, changes))
        except DatabaseBusy:
            self._put_back(changes)
            error = await self._write_in_thread(work)
        except (sqlite3.Error, OSError) as failure:
            self._put_back(changes)
            error = failure
        if not self._note_result(error):
            raise CounterStoreUnavailable(str(error))
        return renewed

    async def read(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        """Reads the counters of these charges. Raises CounterStoreUnavailable if the file cannot be used."""
        try:
            rows, rate_now = CounterRows(self._transactions.loop_connection()), self._rate_now(now)
            rows.apply(self._pending, self._worker)
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
        """The number of changes that are not written yet."""
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
        await self._transactions.run_to_completion(
            lambda conn: conn.execute("DELETE FROM workers WHERE id = ?", (self._worker,))
        )
        self._transactions.close()

    async def _reserve_in_thread(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        def undo(done: "Future[Reservation | LimitExceeded]") -> None:
            if done.exception() is None and isinstance(reservation := done.result(), Reservation):
                self.apply(changes_of(reservation, [0] * len(charges)))

        return await self._run_in_thread(lambda conn: self._reserve(conn, (), charges, now), undo)

    async def _run_in_thread(self, work: Work[T], undo: "Callable[[Future[T]], None]") -> T:
        try:
            return await self._transactions.run_in_thread(work, undo)
        except (sqlite3.Error, OSError) as error:
            raise self._report_failure(error) from None

    def _reserve(
        self,
        connection: sqlite3.Connection,
        changes: Sequence[CounterChange],
        charges: Sequence[Charge],
        now: int,
    ) -> Reservation | LimitExceeded:
        rows, rate_now = self._rows(connection, changes), self._rate_now(now)
        counters = [rows.counter(charge.limit, rate_now) for charge in charges]
        amounts = decide(charges, counters, now)
        if isinstance(amounts, LimitExceeded):
            if rows.mark_wanted(charges, counters, rate_now) or changes or rows.is_corrected:
                rows.write()
            return amounts
        for charge, counter, amount in zip(charges, counters, amounts, strict=True):
            sqlite_file.reserve(charge, counter, amount, self._worker)
        rows.write()
        return Reservation(self._worker, charges, amounts, counters, now)

    def _rows(self, connection: sqlite3.Connection, changes: Sequence[CounterChange]) -> CounterRows:
        """Returns the rows with changes made in them, within a transaction of a worker that is known to be alive."""
        if not self._is_registered:
            self._heartbeat(connection)
        rows = CounterRows(connection)
        rows.apply(changes, self._worker)
        return rows

    def _schedule_flush(self) -> None:
        if self._pending and not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_on_loop)

    def _take_pending(self) -> list[CounterChange]:
        if self._thread_turn.locked():
            return []
        changes, self._pending = self._pending, []
        return changes

    def _put_back(self, changes: list[CounterChange]) -> None:
        self._pending = changes + self._pending

    def _flush_on_loop(self) -> None:
        self._is_flush_scheduled = False
        changes = self._take_pending()
        try:
            if changes:
                self._transactions.run_on_loop(lambda conn: sqlite_file.apply(conn, changes, self._worker))
        except (DatabaseBusy, sqlite3.Error, OSError) as error:
            if not isinstance(error, DatabaseBusy):
                self._report_failure(error)
            self._put_back(changes)
            self._thread_must_flush.set()

    async def _flush_in_thread(self) -> None:
        self._thread_must_flush.clear()
        if self._pending and not self._note_result(
            await self._write_in_thread(lambda conn, changes: sqlite_file.apply(conn, changes, self._worker))
        ):
            self._thread_must_flush.set()

    async def _write_in_thread(
        self, work: Callable[[sqlite3.Connection, Sequence[CounterChange]], object]
    ) -> BaseException | None:
        """Runs work in the thread to its end, with all that is pending then, and returns its error."""
        async with self._thread_turn:
            changes, self._pending = self._pending, []
            error = await self._transactions.run_to_completion(lambda conn: work(conn, changes))
            if error is not None:
                self._put_back(changes)
        self._schedule_flush()
        return error

    def _note_result(self, error: BaseException | None) -> bool:
        if error is None:
            self.is_up = True
        else:
            self._report_failure(error)
        return error is None

    def _heartbeat(self, connection: sqlite3.Connection) -> None:
        now = int(self._clock() * 1000)
        self._worker = sqlite_file.keep_worker(connection, self._worker, now, is_new=not self._is_registered)
        self._is_registered = True

    def _report_failure(self, error: BaseException) -> CounterStoreUnavailable:
        """Logs the first of several failures in a row and returns the exception to raise."""
        if self.is_up:
            log.error("the counters cannot be reached", extra={"file": self._path, "problem": str(error)})
        self.is_up = False
        return CounterStoreUnavailable(str(error))
