"""Counters in the memory of one process, written behind to a file: a restart does not refill budgets."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.core.tasks import await_uncancelled
from gateway.limits.algorithms import BudgetWindow, Charge, Counter
from gateway.limits.store import CounterStoreUnavailable, LimitExceeded, Reservation, decide
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite_file import Counters
from gateway.storage import sqlite

log = logging.getLogger(__name__)

WRITE_SECONDS = 0.8


class MemoryCounterStore:
    """For one worker. ``clock`` in seconds; without a ``path`` nothing outlives the process."""

    name = "memory"

    def __init__(self, clock: Callable[[], float], path: Path | None = None) -> None:
        """A file that cannot be read is tried again; until then nobody with a budget may pass."""
        self._clock = clock
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._tokens: dict[str, Counters] = {}
        self._unwritten: set[str] = set()
        self.is_up = True
        self._is_loaded = path is None
        if path is not None:
            self._take_over(self._read())

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        if not self._is_loaded and any(isinstance(charge.limit, BudgetWindow) for charge in charges):
            raise CounterStoreUnavailable("nobody knows what was spent")
        found = self._found(charges, now)
        amounts = decide(charges, found, now)
        if isinstance(amounts, LimitExceeded):
            return amounts
        for charge, level, amount in zip(charges, found, amounts, strict=True):
            charge.limit.take(level, amount)
        return Reservation(0, charges, amounts, found)

    async def extend(self, reservation: Reservation, place: int, amount: int, now: int) -> bool:
        limit, level = reservation.charges[place].limit, reservation.counters[place]
        limit.refresh(level, now)
        if amount > limit.left(level):
            return False
        limit.take(level, amount)
        reservation.amounts[place] += amount
        return True

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        counters, amounts = reservation.counters, reservation.amounts
        for charge, level, amount, used in zip(reservation.charges, counters, amounts, actual, strict=True):
            charge.limit.settle(level, amount, used)
            if used:
                self._unwritten.add(charge.limit.holder)

    async def counters(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        return [msgspec.structs.replace(level) for level in self._found(charges, now)]

    @property
    def waiting(self) -> int:
        return len(self._unwritten)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            if not self._is_loaded:
                self._take_over(await asyncio.to_thread(self._read))
            else:
                self._notice_moved_file()
                await self._write()

    async def aclose(self) -> None:
        if self._unwritten and self._is_loaded:
            await self._write()
        if self._connection is not None:
            self._connection.close()

    def _found(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        found = []
        for limit, _, _ in charges:
            counters = self._tokens.get(limit.holder)
            if counters is None:
                counters = self._tokens[limit.holder] = {}
            level = counters.get(limit.name)
            if level is None:
                sqlite_file.forget(counters, now)
                level = counters[limit.name] = Counter(ends_at=limit.ends_at)
            limit.refresh(level, now)
            found.append(level)
        return found

    async def _write(self) -> None:
        """Levels, not differences: written twice they are as right as once."""
        taken, self._unwritten = self._unwritten, set()
        if self._path is None or not taken:
            return
        rows = {holder: _settled_alone(self._tokens[holder]) for holder in taken}
        write = asyncio.ensure_future(asyncio.to_thread(self._put, rows))

        def keep_if_not_written(write: "asyncio.Future[bool]") -> None:
            if not write.result():
                self._unwritten |= taken

        await await_uncancelled(write, keep_if_not_written)

    def _notice_moved_file(self) -> None:
        """Everything goes into the new one: a restart must not find less spent than was."""
        if self._connection is not None and self._path is not None and sqlite.is_moved(self._path, self._inode):
            self._connection.close()
            self._connection = None
            self._unwritten |= set(self._tokens)

    def _read(self) -> dict[str, Counters] | None:
        try:
            return sqlite_file.read_all(self._opened())
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return None

    def _take_over(self, found: dict[str, Counters] | None) -> None:
        """What was used before. Who reserved something then is gone; what runs now is not touched."""
        if found is None:
            return
        for holder, counters in found.items():
            here = self._tokens.setdefault(holder, {})
            for name, level in counters.items():
                level.reserved, level.shares = 0, None
                here.setdefault(name, level)
        self._is_loaded = self.is_up = True

    def _put(self, rows: Mapping[str, Mapping[str, Counter]]) -> bool:
        try:
            with self._opened() as connection:
                connection.execute("BEGIN IMMEDIATE")
                for holder, counters in rows.items():
                    sqlite_file.put(connection, holder, counters)
        except (sqlite3.Error, OSError) as error:
            return self._failed(error)
        self.is_up = True
        return True

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None and self._path is not None:
            self._connection = sqlite_file.connect(self._path, busy_seconds=5.0)
            self._inode = self._path.stat().st_ino
        if self._connection is None:
            raise OSError("there is no file")
        return self._connection

    def _failed(self, error: Exception) -> bool:
        if self.is_up:
            log.error("counters cannot be written", extra={"file": self._path, "problem": str(error)})
        self.is_up = False
        return False


def _settled_alone(counters: Counters) -> dict[str, Counter]:
    """Without what is reserved, which ends with this process."""
    return {name: msgspec.structs.replace(level, reserved=0) for name, level in counters.items() if level.used}
