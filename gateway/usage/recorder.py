"""Last-used times, written behind: noted in memory at once, merged per token, in the file within a second.

Nothing is lost while the file cannot be written: what waits is merged, so its size is bounded by the number of tokens,
and it goes out when the file can be written again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from gateway.metrics import Metrics
from gateway.tokens.document import TokenDocument
from gateway.tokens.record import TokenRecord
from gateway.tokens.token_file import TokenFile

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.8
DUTY_CYCLE = 20
"""A write that took t seconds is followed by DUTY_CYCLE * t without one: a large file must not keep the disk busy."""

LONGEST_PAUSE = 30.0


class Use(NamedTuple):
    """What one token did since the last write. ``at`` in seconds since the epoch."""

    times: int
    at: int


class UseRecorder:
    """Collects uses and writes them into the token file."""

    def __init__(
        self,
        file: TokenFile,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._metrics = metrics
        self._monotonic = monotonic
        self._waiting: dict[str, Use] = {}
        self._failing = False
        self._pause = FLUSH_SECONDS

    def note(self, token_id: str, now: float) -> None:
        """Synchronous and cheap: it stands in the way of every request."""
        before = self._waiting.get(token_id)
        self._waiting[token_id] = Use(before.times + 1 if before else 1, int(now))

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(self._pause)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; on failure keep it. Never raises for a file that cannot be written."""
        taken, self._waiting = self._waiting, {}
        if not taken:
            return
        began = self._monotonic()
        write = asyncio.ensure_future(asyncio.to_thread(self._write, taken))
        try:
            await asyncio.wait([write])
        except asyncio.CancelledError:
            # The thread goes on whether we wait or not: only its end tells whether the uses are written.
            await asyncio.wait([write])
            self._settle(write, taken)
            raise
        is_written = self._settle(write, taken)
        busy = (self._monotonic() - began) * DUTY_CYCLE if is_written else 0.0
        self._pause = min(max(FLUSH_SECONDS, busy), LONGEST_PAUSE)
        self._metrics.uses_waiting.set(len(self._waiting))

    def _write(self, taken: dict[str, Use]) -> None:
        """A file that is away for a moment must not be taken for an empty one."""
        self._file.update(lambda before: apply_uses(before, taken), create=False)

    def _settle(self, write: "asyncio.Future[None]", taken: dict[str, Use]) -> bool:
        """Whether the uses are in the file; if not, whatever the reason, they wait again."""
        error = write.exception()
        if error is None:
            self._failing = False
            return True
        self._put_back(taken)
        self._metrics.use_write_failures.inc()
        if not self._failing:
            log.error("last-used times cannot be written, they wait in memory", extra={"problem": str(error)})
        self._failing = True
        return False

    def _put_back(self, taken: dict[str, Use]) -> None:
        for token_id, use in taken.items():
            newer = self._waiting.get(token_id)
            if newer is None:
                self._waiting[token_id] = use
            else:
                self._waiting[token_id] = Use(use.times + newer.times, max(use.at, newer.at))

    async def drain(self) -> None:
        """The last write before the process ends."""
        await self.flush()
        if self._waiting:
            log.error("last-used times lost at shutdown", extra={"tokens": len(self._waiting)})


def apply_uses(before: TokenDocument, uses: dict[str, Use]) -> TokenDocument:
    """Add the uses. A token deleted meanwhile is passed over; without any change the very same document is answered."""
    if not any(record.id in uses for record in before.tokens):
        return before
    tokens = tuple(_used(record, uses[record.id]) if record.id in uses else record for record in before.tokens)
    return TokenDocument(tokens, before.unknown)


def _used(record: TokenRecord, use: Use) -> TokenRecord:
    last_used = use.at if record.last_used is None else max(use.at, record.last_used)
    return msgspec.structs.replace(record, last_used=last_used, usage_count=record.usage_count + use.times)
