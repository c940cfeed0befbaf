"""The requests that still run and stream: what they have used so far is counted while they do, so that the end of the process
loses about a second of them and not all.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from gateway.core.threads import Threads
from gateway.storage.write_behind import WriteBehind
from gateway.usage.models import LedgerEntry
from gateway.usage.store import UsageStore, UsageStoreError

log = logging.getLogger(__name__)

SETTLED_AT_ONCE = 100
"""Requests that are settled between two turns of the event loop: some milliseconds."""


class RunningRequest(Protocol):
    """A request whose response streams."""

    def settle_so_far(self) -> LedgerEntry | None:
        """Counts what it has used so far, and returns its entry as it would be now; None where nothing has changed."""


class RunningRequests:
    """Knows all of one process. ``settle`` is called again and again; a request that ends before it was called twice is not
    looked at."""

    def __init__(self, store: UsageStore, threads: Threads, on_failure: Callable[[], None]) -> None:
        """The store is used in ``threads``. ``on_failure`` is called after each write that failed."""
        self._store = store
        self._threads = threads
        self._new: set[RunningRequest] = set()
        self._settled: set[RunningRequest] = set()
        self._unwritten: dict[RunningRequest, LedgerEntry] = {}
        self._writer = WriteBehind("entries of running requests", self, self._write, on_failure)
        self._is_taken_over = False

    def add(self, request: RunningRequest) -> None:
        """Adds a request whose response begins to stream."""
        self._new.add(request)

    def remove(self, request: RunningRequest) -> None:
        """Removes a request that has ended. Its final entry is recorded next."""
        self._new.discard(request)
        self._settled.discard(request)
        self._unwritten.pop(request, None)

    async def settle(self) -> None:
        """Settles what each request has used so far, and writes it. Raises nothing of the store."""
        for number, request in enumerate(tuple(self._settled)):
            if number % SETTLED_AT_ONCE == SETTLED_AT_ONCE - 1:
                await asyncio.sleep(0)
            entry = request.settle_so_far()
            if entry is not None:
                self._unwritten[request] = entry
        self._settled |= self._new
        self._new.clear()
        await self._writer.flush()

    async def take_over(self) -> None:
        """Enters into the ledger, once, what processes that were killed had written of their requests.

        A store that cannot be used is logged, and asked again by the next call.
        """
        if self._is_taken_over:
            return
        try:
            count = await self._threads.run(self._store.take_over)
        except UsageStoreError as error:
            self._writer.mark_down(error)
            return
        self._is_taken_over = True
        if count:
            log.warning("requests that a killed process served are in the ledger, as partial", extra={"count": count})

    def __len__(self) -> int:
        """See ``Pending``."""
        return len(self._unwritten)

    def take(self) -> dict[RunningRequest, LedgerEntry] | None:
        """See ``Pending.take``."""
        batch, self._unwritten = self._unwritten, {}
        return batch or None

    def put_back(self, batch: dict[RunningRequest, LedgerEntry]) -> None:
        """See ``Pending.put_back``. What has ended meanwhile has a final entry."""
        for request, entry in batch.items():
            if request in self._settled:
                self._unwritten.setdefault(request, entry)

    async def _write(self, batch: dict[RunningRequest, LedgerEntry]) -> None:
        await self._threads.run(self._store.write_running, tuple(batch.values()))
