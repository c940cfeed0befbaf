"""Writing behind: changes wait in memory, and a background task writes them to a store, batch by batch.

Whoever makes a change does not wait for the disk. A batch whose write failed waits again, so a store that fails for a while
loses nothing. ``WriteBehind`` is used from one event loop.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sized
from typing import Generic, Protocol, TypeVar

from gateway.core.threads import Threads, await_uncancelled

log = logging.getLogger(__name__)

T = TypeVar("T")
Batch = TypeVar("Batch", bound=Sized)


class Pending(Protocol[Batch]):
    """What waits to be written. Its methods run on the event loop and do no I/O."""

    def __len__(self) -> int:
        """Returns how many changes wait."""

    def take(self) -> Batch | None:
        """Removes the next batch and returns it; None where nothing waits."""

    def put_back(self, batch: Batch) -> None:
        """Lets a batch wait again that could not be written. Changes made meanwhile are newer than those of the batch."""


class PendingList(Generic[T]):
    """Changes in their order, taken at most ``batch_size`` at once."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.items: list[T] = []

    def __len__(self) -> int:
        return len(self.items)

    def take(self) -> list[T] | None:
        """See ``Pending.take``."""
        batch = self.items[: self._batch_size]
        del self.items[: len(batch)]
        return batch or None

    def put_back(self, batch: list[T]) -> None:
        """See ``Pending.put_back``."""
        self.items[:0] = batch


def in_thread(write: Callable[[Batch], object], threads: Threads) -> Callable[[Batch], Awaitable[object]]:
    """Returns an asynchronous form of a blocking function: it runs in one of ``threads``."""
    return lambda batch: threads.run(write, batch)


class WriteBehind(Generic[Batch]):
    """Writes what is pending, and keeps what could not be written.

    A write that has begun goes on to its end, also when whoever waits for it is cancelled: only its end tells whether the batch
    is written. The first of several failures in a row is logged, and so is the first success after them.
    """

    def __init__(
        self,
        name: str,
        pending: Pending[Batch],
        write: Callable[[Batch], Awaitable[object]],
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        """``name`` is a plural that begins the log messages, such as "ledger entries". ``write`` writes one batch, or raises
        any exception where it did not. ``on_failure`` is called after each write that failed.
        """
        self._name = name
        self._pending = pending
        self._write = write
        self._on_failure = on_failure
        self._lock = asyncio.Lock()
        self.in_flight = 0
        """How many changes the write has that goes on now."""
        self.is_up = True
        """Whether the last attempt to use the store succeeded."""

    @property
    def waiting(self) -> int:
        """How many changes are not known to be written: those that are pending, and those of the write that goes on."""
        return len(self._pending) + self.in_flight

    async def flush(self) -> bool:
        """Writes batches until nothing is pending or one fails. Returns whether all are written; raises nothing of the store.

        Calls at the same time take turns.
        """
        async with self._lock:
            while len(self._pending):
                if not await self._write_batch():
                    return False
        return True

    async def flush_batch(self) -> bool:
        """Writes one batch, where anything is pending. Returns whether no write failed; raises nothing of the store."""
        async with self._lock:
            return await self._write_batch()

    async def drain(self) -> None:
        """Flushes for the last time, before the process ends. Logs how many changes are lost, if any."""
        if not await self.flush():
            log.error(f"{self._name} lost at shutdown", extra={"count": self.waiting})

    def mark_down(self, error: BaseException) -> None:
        """Notes that the store cannot be used, and logs it once. Also for failures other than those of a write."""
        if self.is_up:
            log.error(f"{self._name} cannot be written, they wait in memory", extra={"problem": str(error)})
        self.is_up = False

    def mark_up(self) -> None:
        """Notes that the store can be used, and logs it where it could not be used before."""
        if not self.is_up:
            log.info(f"{self._name} can be written again")
        self.is_up = True

    async def _write_batch(self) -> bool:
        """Returns whether the next batch is written; True where nothing is pending."""
        if (batch := self._pending.take()) is None:
            return True
        self.in_flight = len(batch)
        writing = asyncio.ensure_future(self._write(batch))
        return await await_uncancelled(writing, lambda done: self._end_write(done, batch))

    def _end_write(self, writing: "asyncio.Future[object]", batch: Batch) -> bool:
        """Returns whether the batch is written. A write that was itself cancelled may have ended either way."""
        self.in_flight = 0
        error = asyncio.CancelledError("cancelled") if writing.cancelled() else writing.exception()
        if error is None:
            self.mark_up()
            return True
        self._pending.put_back(batch)
        if self._on_failure is not None:
            self._on_failure()
        self.mark_down(error)
        return False
