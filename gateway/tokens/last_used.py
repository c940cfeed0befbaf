"""Writes last-used times behind the requests: noted in memory at once, merged per secret, stored within a second.

Nothing is lost while the store cannot be written: what is pending is merged, so its size is bounded by the number of secrets,
and it is written when the store can be again.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.core.tasks import await_uncancelled
from gateway.observability.metrics import Metrics
from gateway.tokens.store import TokenStore
from gateway.tokens.uses import Use, UseKey

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.8
DUTY_CYCLE = 20
"""A write that took t seconds is followed by DUTY_CYCLE * t without one: a large file must not keep the disk busy."""

MAX_PAUSE_SECONDS = 30.0


class LastUsedWriter:
    """Collects uses and writes them into the token store."""

    def __init__(self, store: TokenStore, metrics: Metrics, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` tells seconds."""
        self._store = store
        self._metrics = metrics
        self._monotonic = monotonic
        self._pending: dict[UseKey, Use] = {}
        self._is_failing = False
        self.pause = FLUSH_SECONDS
        """Seconds until the next write."""

    @property
    def pending(self) -> int:
        """The number of secrets with uses that are not stored yet."""
        return len(self._pending)

    def note(self, key: UseKey, now: float, address: str | None = None) -> None:
        """Notes one use. ``now`` in seconds since the epoch. Cheap, because every request waits for it."""
        before = self._pending.get(key)
        self._pending[key] = Use(before.times + 1 if before else 1, int(now), address)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await asyncio.sleep(self.pause)
            await self.flush()

    async def flush(self) -> None:
        """Writes what is pending; what cannot be written stays pending."""
        batch, self._pending = self._pending, {}
        if not batch:
            return
        began = self._monotonic()
        write = asyncio.ensure_future(self._store.record_uses(batch))
        is_written = await await_uncancelled(write, lambda write: self._settle(write, batch))
        busy = (self._monotonic() - began) * DUTY_CYCLE if is_written else 0.0
        self.pause = min(max(FLUSH_SECONDS, busy), MAX_PAUSE_SECONDS)
        self._metrics.uses_waiting.set(len(self._pending))

    def _settle(self, write: "asyncio.Future[None]", batch: dict[UseKey, Use]) -> bool:
        """Whether the uses are stored; if not, whatever the reason, they are pending again."""
        error = write.exception()
        if error is None:
            self._is_failing = False
            return True
        self._put_back(batch)
        self._metrics.use_write_failures.inc()
        if not self._is_failing:
            log.error("last-used times cannot be written, they wait in memory", extra={"problem": str(error)})
        self._is_failing = True
        return False

    def _put_back(self, batch: dict[UseKey, Use]) -> None:
        for key, use in batch.items():
            newer = self._pending.get(key)
            self._pending[key] = use if newer is None else use.and_then(newer)

    async def drain(self) -> None:
        """Writes for the last time before the process ends, and logs what is lost."""
        await self.flush()
        if self._pending:
            log.error("last-used times lost at shutdown", extra={"tokens": len(self._pending)})
