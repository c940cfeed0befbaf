"""The ledger: collects an entry for each request in memory at once, and writes the entries to the usage store within a second.

An entry leaves the memory only when it is known to be in the store. The store ignores entries that it has already, so a write
whose end is not known is simply repeated.
"""

import asyncio
import logging
from collections.abc import Callable

from gateway.core.threads import Threads
from gateway.observability.metrics import Metrics
from gateway.storage.write_behind import PendingList, WriteBehind, in_thread
from gateway.usage.models import LedgerEntry
from gateway.usage.running import RunningRequests
from gateway.usage.store import UsageStore, UsageStoreError

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.8
BATCH = 1000
"""Entries in one transaction: other processes wait for its end, and the event loop while their rows are made."""

MAX_WAITING = 200_000
"""The most entries that are kept in memory, about a hundred megabytes. Further ones are lost, because a disk that stays broken
must not take the process down with all that waits."""

ALMOST_FULL = 150_000
"""From this number of entries on no new request is admitted, so that the entries of running requests still fit."""

PRUNE_SECONDS = 3600.0
PRUNE_BATCH = 5000
"""Entries that are removed at once: other processes want to write meanwhile."""

_DAY_MS = 86_400_000


class Ledger:
    """Collects entries and writes them to the usage store. Used from the event loop."""

    def __init__(self, store: UsageStore, metrics: Metrics, retention_days: int, clock: Callable[[], float]) -> None:
        """Entries are removed after ``retention_days``, never if it is 0; their sums by the hour stay. ``clock`` in seconds since
        the epoch.
        """
        self._store = store
        self._metrics = metrics
        self._retention_ms = retention_days * _DAY_MS
        self._clock = clock
        self._threads = Threads("ledger")
        self._pending: PendingList[LedgerEntry] = PendingList(BATCH)
        self._entries = self._pending.items
        self._writer = WriteBehind(
            "ledger entries", self._pending, in_thread(store.write, self._threads), metrics.ledger_write_failures.inc
        )
        self.running = RunningRequests(store, self._threads, metrics.ledger_write_failures.inc)
        """The requests that have no entry yet, because their responses still stream."""
        self.is_full = False
        """Whether so many entries wait that no new request may be admitted: nobody would know what it used."""
        self._lost = 0
        self._next_prune = 0.0

    @property
    def is_up(self) -> bool:
        """Whether the last write succeeded."""
        return self._writer.is_up

    @property
    def waiting(self) -> int:
        """The number of entries that are not known to be in the store."""
        return self._writer.waiting

    def record(self, entry: LedgerEntry) -> None:
        """Adds an entry, without I/O. Each request ends with it."""
        count = len(self._entries)
        self.is_full = count + 1 >= ALMOST_FULL
        if count < MAX_WAITING:
            self._entries.append(entry)
            return
        if self._lost == 0:
            log.error("too many ledger entries wait, further ones are lost", extra={"waiting": MAX_WAITING})
        self._lost += 1

    async def run(self) -> None:
        """Writes and prunes until cancelled, and takes over from killed processes first."""
        while True:
            await self.running.take_over()
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
            await self.running.settle()
            await self.prune()

    async def flush(self) -> None:
        """Writes what waits, and keeps what cannot be written. Raises nothing of the store."""
        is_written = await self._writer.flush()
        if is_written and self._lost:
            log.error("ledger entries were lost while they could not be written", extra={"entries": self._lost})
            self._lost = 0
        self.is_full = self.waiting >= ALMOST_FULL
        self._metrics.ledger_waiting.set(self.waiting)

    async def drain(self) -> None:
        """Writes for the last time, before the process ends, and closes the store."""
        await self._writer.drain()
        await self._threads.run(self._store.close)

    async def prune(self) -> None:
        """Removes one batch of entries that are older than the retention. After the last batch it does nothing for an hour."""
        now = self._clock()
        if self._retention_ms == 0 or now < self._next_prune or not self.is_up:
            return
        removed = 0
        try:
            removed = await self._threads.run(self._store.prune, int(now * 1000) - self._retention_ms, PRUNE_BATCH)
        except UsageStoreError as error:
            log.error("old entries of the ledger cannot be removed", extra={"problem": str(error)})
        if removed < PRUNE_BATCH:  # otherwise the next round removes more, after what has to be written
            self._next_prune = now + PRUNE_SECONDS
