"""Time limits at a coarse grain.

Every piece of every stream is waited for with a limit of minutes. A timer of its own for each costs more than anything else
that a piece passes through; here one look every quarter of a second serves all that wait, and a limit fires that much late.
"""

import asyncio
import time
from types import TracebackType

LOOK_SECONDS = 0.25


class CoarseTimeouts:
    """Hands out limits and looks after them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: set[Timeout] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> "Timeout":
        """``with timeouts.within(seconds): await …`` raises TimeoutError."""
        return Timeout(self, seconds)

    def begin(self, limit: "Timeout") -> None:
        self._waiting.add(limit)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def end(self, limit: "Timeout") -> None:
        self._waiting.discard(limit)

    def _look(self) -> None:
        now = time.monotonic()
        for limit in [limit for limit in self._waiting if limit.ends_at <= now]:
            limit.expire()
        again = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look) if self._waiting else None
        self._timer = again


class Timeout:
    """One wait of the current task."""

    __slots__ = ("_expired", "_task", "_timeouts", "ends_at")

    def __init__(self, timeouts: CoarseTimeouts, seconds: float) -> None:
        self._timeouts = timeouts
        self._task = asyncio.current_task()
        self._expired = False
        self.ends_at = time.monotonic() + seconds

    def __enter__(self) -> None:
        self._timeouts.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._timeouts.end(self)
        if not self._expired or self._task is None:
            return
        # Cancelled by somebody else as well, the task stays cancelled.
        if self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        self._timeouts.end(self)
        self._expired = True
        if self._task is not None:
            self._task.cancel()
