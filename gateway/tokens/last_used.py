"""Writes last-used times behind the requests: noted in memory at once, merged per secret, stored within a second.

Nothing is lost while the store cannot be written: what is pending is merged, so its size is bounded by the number of secrets,
and it is written when the store can be again.
"""

import asyncio
import time
from collections.abc import Callable

from gateway.observability.metrics import Metrics
from gateway.storage.write_behind import WriteBehind
from gateway.tokens.models import UseKey
from gateway.tokens.store import TokenStore
from gateway.tokens.uses import Use

FLUSH_SECONDS = 0.8
DUTY_CYCLE = 20
"""A write that took t seconds is followed by DUTY_CYCLE * t without one: a large file must not keep the disk busy."""

MAX_PAUSE_SECONDS = 30.0


class PendingUses:
    """The uses that wait to be written, merged per secret, for ``WriteBehind``."""

    def __init__(self) -> None:
        self.by_key: dict[UseKey, Use] = {}

    def __len__(self) -> int:
        return len(self.by_key)

    def note(self, key: UseKey, now: float, address: str | None) -> None:
        """Adds one use to those of the same secret."""
        before = self.by_key.get(key)
        self.by_key[key] = Use(before.times + 1 if before else 1, int(now), address)

    def take(self) -> dict[UseKey, Use] | None:
        """See ``Pending.take``."""
        batch, self.by_key = self.by_key, {}
        return batch or None

    def put_back(self, batch: dict[UseKey, Use]) -> None:
        """See ``Pending.put_back``."""
        for key, use in batch.items():
            newer = self.by_key.get(key)
            self.by_key[key] = use if newer is None else use.and_then(newer)


class LastUsedWriter:
    """Collects uses and writes them into the token store."""

    def __init__(self, store: TokenStore, metrics: Metrics, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` tells seconds."""
        self._metrics = metrics
        self._monotonic = monotonic
        self.pending = PendingUses()
        """The uses that are not stored yet, without those that are being written."""
        self._writer = WriteBehind("last-used times", self.pending, store.record_uses, metrics.use_write_failures.inc)
        self.pause = FLUSH_SECONDS
        """Seconds until the next write."""

    def note(self, key: UseKey, now: float, address: str | None = None) -> None:
        """Notes one use. ``now`` in seconds since the epoch. Cheap, because every request waits for it."""
        self.pending.note(key, now, address)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await asyncio.sleep(self.pause)
            await self.flush()

    async def flush(self) -> None:
        """Writes what is pending now; what cannot be written stays pending. Raises nothing of the store.

        Uses that are noted meanwhile wait for the next call: the pause after a slow write would not be kept otherwise.
        """
        if not self.pending:
            return
        began = self._monotonic()
        is_written = await self._writer.flush_batch()
        busy = (self._monotonic() - began) * DUTY_CYCLE if is_written else 0.0
        self.pause = min(max(FLUSH_SECONDS, busy), MAX_PAUSE_SECONDS)
        self._metrics.uses_waiting.set(len(self.pending))

    async def drain(self) -> None:
        """Writes for the last time before the process ends, and logs how many are lost, if any."""
        await self._writer.drain()
