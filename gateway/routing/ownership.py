"""Keeps which token's owner made which object at the upstream, where all tokens share one account.

What a response tells a client is in the store before the client has it: it may use the id at once, at another worker.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Records that are kept in memory while they cannot be written. Beyond it the oldest are lost: nobody can use those objects."""

PRUNE_SECONDS = 3600.0
PRUNE_BATCH = 5000
"""Records that are removed at once: other processes want to write meanwhile."""

_DAY_MS = 86_400_000


class ObjectKey(NamedTuple):
    """Names an object at a provider."""

    provider: str
    id: str


class ObjectRecord(NamedTuple):
    """Tells who made an object."""

    key: ObjectKey
    kind: str
    """The collection that it is in, such as ``files``."""
    owner: str
    """The owner of the token that made it; the token's id where it has no owner."""
    at: int
    """In milliseconds since the epoch."""


class ObjectStoreError(OSError):
    """The store cannot be read or written."""


class ObjectStore(Protocol):
    """Blocking methods, which any thread may call. Any number of processes may use one store.

    A second store is done when it passes ``tests/routing/test_ownership.py``.
    """

    def add(self, records: Sequence[ObjectRecord]) -> None:
        """Adds the records, in one transaction. An object that is in the store keeps the owner that it has.

        Raises ObjectStoreError; then nothing was added, unless the store failed while it committed.
        """

    def owners(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, str]:
        """Returns the owner of each of these objects that is in the store. Raises ObjectStoreError."""

    def prune(self, before_ms: int, limit: int) -> int:
        """Removes at most ``limit`` records that are older than this time, in milliseconds since the epoch.

        Returns how many were removed. Raises ObjectStoreError.
        """

    def close(self) -> None:
        """Releases what the store has open. The next call of another method opens it again."""


class Ownership:
    """Writes and reads the store in a thread of its own. Used from the event loop."""

    def __init__(
        self, store: ObjectStore, days: int, clock: Callable[[], float], count_failure: Callable[[], None]
    ) -> None:
        """Records are removed after ``days``, never if it is 0. ``clock`` is in seconds since the epoch."""
        self._store = store
        self._retention_ms = days * _DAY_MS
        self._clock = clock
        self._count_failure = count_failure
        self._waiting: deque[ObjectRecord] = deque(maxlen=MAX_WAITING)
        self._thread = ThreadPoolExecutor(1, "objects")
        self.is_up = True

    @property
    def waiting(self) -> int:
        """The number of records that are not known to be in the store."""
        return len(self._waiting)

    async def record(self, records: Sequence[ObjectRecord]) -> None:
        """Returns when the records are in the store. Where that fails they stay in memory, and the next write includes them."""
        self._waiting.extend(records)
        await self.flush()

    async def flush(self) -> None:
        """Writes what waits. Raises nothing of the store."""
        if not self._waiting:
            return
        batch = list(self._waiting)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.add, batch)
        except ObjectStoreError as error:
            self._note_failure("who made which object cannot be written", error)
            return
        self.is_up = True
        written = set(batch)
        self._waiting = deque((record for record in self._waiting if record not in written), MAX_WAITING)

    async def owners(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, str]:
        """Returns the owner of each of these objects that is known. Raises ObjectStoreError."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._store.owners, keys)
        except ObjectStoreError as error:
            self._note_failure("who made which object cannot be read", error)
            raise
        return {**{record.key: record.owner for record in reversed(self._waiting)}, **found}

    async def run(self) -> None:
        """Writes what could not be written, and removes what is old, until cancelled."""
        while True:
            await self.flush()
            await self.prune()
            await asyncio.sleep(PRUNE_SECONDS if self.is_up else 5.0)

    async def prune(self) -> None:
        """Removes all records that are older than the retention. Raises nothing of the store."""
        before = int(self._clock() * 1000) - self._retention_ms
        removed = PRUNE_BATCH if self._retention_ms else 0
        while removed == PRUNE_BATCH:
            try:
                loop = asyncio.get_running_loop()
                removed = await loop.run_in_executor(self._thread, self._store.prune, before, PRUNE_BATCH)
            except ObjectStoreError as error:
                self._note_failure("old records of objects cannot be removed", error)
                return

    async def aclose(self) -> None:
        """Writes for the last time and closes the store."""
        await self.flush()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown(wait=False)

    def _note_failure(self, what: str, error: ObjectStoreError) -> None:
        self.is_up = False
        self._count_failure()
        log.error(what, extra={"problem": str(error)})
