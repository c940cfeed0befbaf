"""Last-used times, written behind: noted in memory at once, merged per token, in the file within a second.

Nothing is lost while the file cannot be written: what waits is merged, so its size is bounded by the number of secrets,
and it goes out when the file can be written again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from gateway.core.tasks import await_uncancelled
from gateway.observability.metrics import Metrics
from gateway.tokens.models import PreviousSecret, TokenRecord
from gateway.tokens.stores.json_file import JsonTokenFile
from gateway.tokens.stores.json_format import TokenDocument

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.8
DUTY_CYCLE = 20
"""A write that took t seconds is followed by DUTY_CYCLE * t without one: a large file must not keep the disk busy."""

LONGEST_PAUSE = 30.0


class UseKey(NamedTuple):
    """Whose use it is. ``previous_hash`` is set where a secret was used that a rotation has replaced."""

    token_id: str
    previous_hash: str | None = None


class Use(NamedTuple):
    """What was done since the last write. ``at`` in seconds since the epoch; ``address`` is noted for replaced secrets."""

    times: int
    at: int
    address: str | None = None

    def and_then(self, later: "Use") -> "Use":
        newest = later if later.at >= self.at else self
        return Use(self.times + later.times, newest.at, newest.address)


class LastUsedWriter:
    """Collects uses and writes them into the token file."""

    def __init__(
        self,
        file: JsonTokenFile,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._metrics = metrics
        self._monotonic = monotonic
        self._waiting: dict[UseKey, Use] = {}
        self._failing = False
        self._pause = FLUSH_SECONDS

    def note(self, used: UseKey, now: float, address: str | None = None) -> None:
        """Synchronous and cheap: it stands in the way of every request."""
        before = self._waiting.get(used)
        self._waiting[used] = Use(before.times + 1 if before else 1, int(now), address)

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
        is_written = await await_uncancelled(write, lambda write: self._settle(write, taken))
        busy = (self._monotonic() - began) * DUTY_CYCLE if is_written else 0.0
        self._pause = min(max(FLUSH_SECONDS, busy), LONGEST_PAUSE)
        self._metrics.uses_waiting.set(len(self._waiting))

    def _write(self, taken: dict[UseKey, Use]) -> None:
        """A file that is away for a moment must not be taken for an empty one."""
        self._file.update(lambda before: apply_uses(before, taken), create=False)

    def _settle(self, write: "asyncio.Future[None]", taken: dict[UseKey, Use]) -> bool:
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

    def _put_back(self, taken: dict[UseKey, Use]) -> None:
        for used, use in taken.items():
            newer = self._waiting.get(used)
            self._waiting[used] = use if newer is None else use.and_then(newer)

    async def drain(self) -> None:
        """The last write before the process ends."""
        await self.flush()
        if self._waiting:
            log.error("last-used times lost at shutdown", extra={"tokens": len(self._waiting)})


def apply_uses(before: TokenDocument, uses: Mapping[UseKey, Use]) -> TokenDocument:
    """Add the uses. A token deleted meanwhile is passed over; without any change the very same document is answered."""
    by_token: dict[str, dict[str | None, Use]] = {}
    for used, use in uses.items():
        by_token.setdefault(used.token_id, {})[used.previous_hash] = use
    if not any(record.id in by_token for record in before.tokens):
        return before
    tokens = tuple(_used(record, by_token[record.id]) if record.id in by_token else record for record in before.tokens)
    return TokenDocument(tokens, before.unknown)


def _used(record: TokenRecord, uses: Mapping[str | None, Use]) -> TokenRecord:
    previous = tuple(_used_again(old, uses[old.hash]) if old.hash in uses else old for old in record.previous_secrets)
    return msgspec.structs.replace(
        record,
        last_used=max(record.last_used or 0, *(use.at for use in uses.values())),
        usage_count=record.usage_count + sum(use.times for use in uses.values()),
        previous_secrets=previous,
    )


def _used_again(old: PreviousSecret, use: Use) -> PreviousSecret:
    count = old.usage_count + use.times
    if old.last_used is not None and old.last_used > use.at:
        return msgspec.structs.replace(old, usage_count=count)
    return msgspec.structs.replace(old, usage_count=count, last_used=use.at, last_used_from=use.address)
