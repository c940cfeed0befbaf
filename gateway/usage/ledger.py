"""The ledger, written behind the requests: an entry is noted in memory at once, and is in the file within a second.

What cannot be written waits and is tried again. It goes out of memory only when it is known to be in the file, and the file
takes nothing twice: so a write of which nobody learnt how it ended is simply made again.
"""

import asyncio
import logging
from collections.abc import Callable

from gateway.core.tasks import await_uncancelled
from gateway.observability.metrics import Metrics
from gateway.usage.models import LedgerEntry
from gateway.usage.stores.sqlite import PRUNED_AT_ONCE, SqliteUsageStore

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.8
BATCH = 2000
"""Entries in one transaction: other processes wait for its end."""

MAX_WAITING = 200_000
"""About a hundred megabytes. A disk that stays bad must not take the memory, and with it everything that waits."""

ALMOST_FULL = 150_000
"""From here on nothing new is admitted; what runs has room to end."""

PRUNE_SECONDS = 3600.0
_DAY_MS = 86_400_000


class Ledger:
    """Collects entries and writes them into the file. Used from the event loop; ``clock`` in seconds since the epoch.

    Without ``retention_days`` single entries are kept for ever; the sums by the hour always are.
    """

    def __init__(
        self, file: SqliteUsageStore, metrics: Metrics, retention_days: int, clock: Callable[[], float]
    ) -> None:
        self._file = file
        self._metrics = metrics
        self._retention_ms = retention_days * _DAY_MS
        self._clock = clock
        self._waiting: list[LedgerEntry] = []
        self._flushing = asyncio.Lock()
        self._lost = 0
        self._next_prune = 0.0
        self.is_up = True
        """Whether the last write succeeded."""

    @property
    def waiting(self) -> int:
        """Entries that are not known to be in the file."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether it has been out of order for so long that nothing more should be let through: nobody would know of it."""
        return len(self._waiting) >= ALMOST_FULL

    def record(self, entry: LedgerEntry) -> None:
        """Synchronous and cheap: it stands at the end of every request."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(entry)
            return
        if self._lost == 0:
            log.error("the ledger has too many entries waiting, further ones are lost", extra={"waiting": MAX_WAITING})
        self._lost += 1

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
            await self._prune()

    async def flush(self) -> None:
        """Write what waits; on failure keep it. Never raises for a file that cannot be written."""
        async with self._flushing:
            while self._waiting and await self._is_written(self._waiting[:BATCH]):
                pass
            self._metrics.ledger_waiting.set(self.waiting)

    async def drain(self) -> None:
        """The last write before the process ends."""
        await self.flush()
        if self._waiting:
            log.error("ledger entries lost at shutdown", extra={"entries": self.waiting})
        await asyncio.to_thread(self._file.close)

    async def _is_written(self, batch: list[LedgerEntry]) -> bool:
        write = asyncio.ensure_future(asyncio.to_thread(self._file.write, batch))
        return await await_uncancelled(write, lambda write: self._settle(write, batch))

    def _settle(self, write: "asyncio.Future[int]", batch: list[LedgerEntry]) -> bool:
        """Whether the batch is in the file; if not, whatever the reason, it waits on."""
        error = write.exception()
        if error is None:
            del self._waiting[: len(batch)]
            self.is_up = True
            if self._lost:
                log.error("ledger entries were lost while it could not be written", extra={"entries": self._lost})
                self._lost = 0
            return True
        self._metrics.ledger_write_failures.inc()
        if self.is_up:
            log.error("the ledger cannot be written, its entries wait in memory", extra={"problem": str(error)})
        self.is_up = False
        return False

    async def _prune(self) -> None:
        now = self._clock()
        if self._retention_ms == 0 or now < self._next_prune or not self.is_up:
            return
        removed = 0
        try:
            removed = await asyncio.to_thread(self._file.prune_some, int(now * 1000) - self._retention_ms)
        except OSError as error:
            log.error("old entries of the ledger cannot be removed", extra={"problem": str(error)})
        if removed < PRUNED_AT_ONCE:  # else the next round goes on with it, after what has to be written
            self._next_prune = now + PRUNE_SECONDS
