"""Keeps counters in the memory of one process and copies them to a file, so that a restart does not refill budgets."""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.core.threads import Threads, await_uncancelled
from gateway.limits.algorithms import BudgetWindow, Charge, settle_charges
from gateway.limits.models import Counter, TokenCounters
from gateway.limits.store import (
    CounterStoreUnavailable,
    LimitExceeded,
    RateClock,
    Reservation,
    find_counters,
    reserve,
)
from gateway.limits.stores import sqlite_file
from gateway.storage.sqlite import ReopeningConnection
from gateway.storage.write_behind import WriteBehind, in_thread

WRITE_SECONDS = 0.8
_BUSY_SECONDS = 5.0

Rows = Mapping[str, Mapping[str, Counter]]
"""What is written: counters by the ids of their tokens and the names of their limits."""


class MemoryCounterStore:
    """Counts for a gateway of one worker. Without a ``path`` nothing outlives the process.

    The file is read at once. Where that fails it is tried again whenever the store is flushed; until then requests with a
    budget get CounterStoreUnavailable, because it is unknown what was spent before.
    """

    def __init__(self, path: Path | None = None, rate_clock: RateClock | None = None) -> None:
        """``rate_clock`` is in seconds since the epoch; without it rates are paid back by the ``now`` of each call."""
        self._rate_clock = rate_clock
        self._tokens: dict[str, TokenCounters] = {}
        self._changed: set[str] = set()
        """The ids of tokens whose counters have changed since they were written."""
        self._copy = None if path is None else _FileCopy(path, self._tokens, self._changed)

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        if self._copy is not None and not self._copy.is_loaded:
            _refuse_budgets(charges)
        clock = self._rate_clock
        return reserve(self._tokens, charges, now, now if clock is None else int(clock() * 1000))

    async def extend(self, reservation: Reservation, index: int, amount: int, now: int) -> bool:
        limit, counter = reservation.charges[index].limit, reservation.counters[index]
        limit.refill(counter, self._rate_now(now))
        if amount > limit.remaining(counter):
            return False
        limit.reserve(counter, amount)
        reservation.amounts[index] += amount
        return True

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        charges = reservation.charges
        settle_charges(charges, reservation.counters, reservation.amounts, actual, self._tokens)
        self._changed.update([charge.limit.token_id for charge, used in zip(charges, actual, strict=True) if used])

    async def read(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        return [
            msgspec.structs.replace(counter) for counter in find_counters(self._tokens, charges, self._rate_now(now))
        ]

    def _rate_now(self, now: int) -> int:
        """Returns the time up to which rates are paid back."""
        return now if self._rate_clock is None else int(self._rate_clock() * 1000)

    @property
    def is_up(self) -> bool:
        """Whether the file could be read or written when that was tried last."""
        return self._copy is None or self._copy.is_up

    @property
    def problem(self) -> str | None:
        if self._copy is None or self._copy.is_up:
            return None
        if not self._copy.is_loaded:
            return "the counters of limits cannot be read; tokens with a budget are refused until then"
        return "the counters of limits cannot be written"

    @property
    def pending(self) -> int:
        """The number of tokens whose counters are not written yet; 0 without a file."""
        return 0 if self._copy is None else self._copy.pending

    async def flush(self) -> None:
        if self._copy is not None:
            await self._copy.update()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.flush()

    async def aclose(self) -> None:
        if self._copy is not None:
            await self._copy.aclose()


class _FileCopy:
    """Copies counters to a file, after it has read from the file what was used before the start.

    It writes values, not differences, so that writing the same change twice does no harm.
    """

    def __init__(self, path: Path, tokens: dict[str, TokenCounters], changed: set[str]) -> None:
        self._tokens = tokens
        self._changed = changed
        self._connection = ReopeningConnection(path, lambda: sqlite_file.connect(path, _BUSY_SECONDS))
        self._openings = 0
        """The number of openings at the last read or write. A file that was opened since may have nothing of what is here."""
        self._is_replaced = False
        """Whether a write found such a file. Set in a thread, while a write goes on."""
        self._threads = Threads("counters")
        self._writer = WriteBehind("counters", _ChangedTokens(tokens, changed), in_thread(self._write, self._threads))
        self.is_loaded = False
        """Whether the file was read. Before, nothing is written: it would replace what was used before the start."""
        try:
            self._merge(self._read())
        except (sqlite3.Error, OSError) as error:
            self._writer.mark_down(error)

    @property
    def is_up(self) -> bool:
        return self._writer.is_up

    @property
    def pending(self) -> int:
        return self._writer.waiting

    async def update(self) -> None:
        """Reads the file if that is still to be done, and writes what has changed. Into a new file it writes everything."""
        if not self.is_loaded:
            reading = asyncio.ensure_future(self._threads.run(self._read))
            await await_uncancelled(reading, self._end_read)
        elif await self._threads.run(self._may_be_moved):
            self._changed.update(self._tokens)
        await self._flush()

    async def aclose(self) -> None:
        await self._flush()
        if self.is_loaded:
            await self._writer.drain()
        self._connection.close()

    async def _flush(self) -> None:
        if not self.is_loaded:
            return
        await self._writer.flush()
        if self._is_replaced:
            # It was replaced after the check, so only what had changed is in it.
            self._is_replaced = False
            self._changed.update(self._tokens)
            await self._writer.flush()

    def _may_be_moved(self) -> bool:
        try:
            return self._connection.is_moved
        except OSError:
            return True  # the write that follows meets the same error, and reports it

    def _read(self) -> dict[str, TokenCounters]:
        counters = sqlite_file.read_all(self._connection.get())
        self._openings = self._connection.openings
        return counters

    def _end_read(self, reading: "asyncio.Future[dict[str, TokenCounters]]") -> None:
        if reading.exception() is None:  # else the store is as it was: it counts as down until the file is read
            self._merge(reading.result())

    def _merge(self, stored: dict[str, TokenCounters]) -> None:
        """Adds what was used before the start. What was reserved then is void; counters that are in use stay as they are."""
        for token_id, counters in stored.items():
            known = self._tokens.setdefault(token_id, {})
            for name, counter in counters.items():
                counter.reserved, counter.reserved_by_worker = 0, None
                known.setdefault(name, counter)
        self.is_loaded = True
        self._writer.mark_up()

    def _write(self, rows: Rows) -> None:
        with self._connection.get() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for token_id, counters in rows.items():
                sqlite_file.write_token(connection, token_id, counters)
        self._is_replaced = self._is_replaced or self._connection.openings != self._openings
        self._openings = self._connection.openings


class _ChangedTokens:
    """The counters of the tokens that have changed, for WriteBehind."""

    def __init__(self, tokens: Mapping[str, TokenCounters], changed: set[str]) -> None:
        self._tokens = tokens
        self._changed = changed

    def __len__(self) -> int:
        return len(self._changed)

    def take(self) -> Rows | None:
        rows = {token_id: _used(self._tokens[token_id]) for token_id in self._changed}
        self._changed.clear()
        return rows or None

    def put_back(self, batch: Rows) -> None:
        self._changed.update(batch)


def _used(counters: TokenCounters) -> dict[str, Counter]:
    """Returns copies of a token's counters, without what is reserved: reservations end with this process."""
    return {name: msgspec.structs.replace(counter, reserved=0) for name, counter in counters.items() if counter.used}


def _refuse_budgets(charges: Sequence[Charge]) -> None:
    if any(isinstance(charge.limit, BudgetWindow) for charge in charges):
        raise CounterStoreUnavailable("the file of counters could not be read yet")
