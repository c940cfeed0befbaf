"""Keeps counters in the memory of one process and copies them to a file, so that a restart does not refill budgets."""

import asyncio
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.core.tasks import await_uncancelled
from gateway.limits.algorithms import BudgetWindow, Charge, Counter
from gateway.limits.store import (
    CounterStoreUnavailable,
    LimitExceeded,
    Reservation,
    TokenCounters,
    decide,
    find_counter,
)
from gateway.limits.stores import sqlite_file
from gateway.storage import sqlite

log = logging.getLogger(__name__)

WRITE_SECONDS = 0.8
_BUSY_SECONDS = 5.0


class MemoryCounterStore:
    """Counts for a gateway of one worker. Without a ``path`` nothing outlives the process.

    A file that cannot be read is tried again by ``run``. Until then requests with a budget get CounterStoreUnavailable,
    because it is unknown what was spent before.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._tokens: dict[str, TokenCounters] = {}
        self._changed: set[str] = set()
        """The ids of tokens whose counters are not written yet."""
        self.is_up = True
        self._is_loaded = path is None
        if path is not None:
            self._merge(self._read())

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        if not self._is_loaded and any(isinstance(charge.limit, BudgetWindow) for charge in charges):
            raise CounterStoreUnavailable("the file of counters could not be read yet")
        counters = self._find(charges, now)
        amounts = decide(charges, counters, now)
        if isinstance(amounts, LimitExceeded):
            return amounts
        for charge, counter, amount in zip(charges, counters, amounts, strict=True):
            charge.limit.reserve(counter, amount)
        return Reservation(0, charges, amounts, counters)

    async def extend(self, reservation: Reservation, index: int, amount: int, now: int) -> bool:
        limit, counter = reservation.charges[index].limit, reservation.counters[index]
        limit.refill(counter, now)
        if amount > limit.remaining(counter):
            return False
        limit.reserve(counter, amount)
        reservation.amounts[index] += amount
        return True

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        counters, amounts = reservation.counters, reservation.amounts
        for charge, counter, amount, used in zip(reservation.charges, counters, amounts, actual, strict=True):
            charge.limit.settle(counter, amount, used)
            if used:
                self._changed.add(charge.limit.token_id)

    async def read(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        return [msgspec.structs.replace(counter) for counter in self._find(charges, now)]

    @property
    def pending(self) -> int:
        """The number of tokens whose counters are not written yet."""
        return len(self._changed)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            if not self._is_loaded:
                self._merge(await asyncio.to_thread(self._read))
            else:
                await self._close_moved_file()
                await self.flush()

    async def aclose(self) -> None:
        await self.flush()
        if self._connection is not None:
            self._connection.close()

    async def flush(self) -> None:
        """Writes the counters of all tokens that have changed.

        It writes values, not differences, so that writing the same change twice does no harm.
        """
        if not self._is_loaded:
            return  # a write now would replace counters that are not read yet
        changed, self._changed = self._changed, set()
        if self._path is None or not changed:
            return
        rows = {token_id: _persistent(self._tokens[token_id]) for token_id in changed}
        write = asyncio.ensure_future(asyncio.to_thread(self._write, rows))

        def keep_if_failed(write: "asyncio.Future[bool]") -> None:
            if not write.result():
                self._changed |= changed

        await await_uncancelled(write, keep_if_failed)

    def _find(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        found = []
        for limit, _, _ in charges:
            counters = self._tokens.get(limit.token_id)
            if counters is None:
                counters = self._tokens[limit.token_id] = {}
            found.append(find_counter(counters, limit, now))
        return found

    async def _close_moved_file(self) -> None:
        """Closes a file that was moved or deleted, and has everything written to the new one."""
        connection = self._connection
        if connection is None or self._path is None:
            return
        if await asyncio.to_thread(sqlite.is_moved, self._path, self._inode):
            self._connection = None
            self._changed |= set(self._tokens)
            await asyncio.to_thread(connection.close)

    def _read(self) -> dict[str, TokenCounters] | None:
        try:
            return sqlite_file.read_all(self._open())
        except (sqlite3.Error, OSError) as error:
            self._report_failure(error)
            return None

    def _merge(self, stored: dict[str, TokenCounters] | None) -> None:
        """Adds what was used before the start. What was reserved then is void; counters that are in use stay as they are."""
        if stored is None:
            return
        for token_id, counters in stored.items():
            known = self._tokens.setdefault(token_id, {})
            for name, counter in counters.items():
                counter.reserved, counter.reserved_by_worker = 0, None
                known.setdefault(name, counter)
        self._is_loaded = self.is_up = True

    def _write(self, rows: Mapping[str, Mapping[str, Counter]]) -> bool:
        try:
            with self._open() as connection:
                connection.execute("BEGIN IMMEDIATE")
                for token_id, counters in rows.items():
                    sqlite_file.write_token(connection, token_id, counters)
        except (sqlite3.Error, OSError) as error:
            self._report_failure(error)
            return False
        self.is_up = True
        return True

    def _open(self) -> sqlite3.Connection:
        if self._connection is None and self._path is not None:
            self._connection = sqlite_file.connect(self._path, _BUSY_SECONDS)
            self._inode = self._path.stat().st_ino
        if self._connection is None:
            raise OSError("there is no file")
        return self._connection

    def _report_failure(self, error: Exception) -> None:
        if self.is_up:
            log.error("counters cannot be written", extra={"file": self._path, "problem": str(error)})
        self.is_up = False


def _persistent(counters: TokenCounters) -> dict[str, Counter]:
    """Returns what is written of a token: what was used, without reservations, which end with this process."""
    return {name: msgspec.structs.replace(counter, reserved=0) for name, counter in counters.items() if counter.used}
