"""Limits the time of waits, at a coarse grain.

Every chunk of every stream is waited for with a limit of minutes. A timer for each would cost more than anything else that is
done with a chunk; here one check every quarter of a second serves all waits, and a limit may fire that much late.
"""

import asyncio
import time
from types import TracebackType
from typing import Protocol

CHECK_SECONDS = 0.25


class Deadline(Protocol):
    """Defines what can be checked: a time of ``time.monotonic``, and what happens then."""

    @property
    def ends_at(self) -> float:
        """In seconds. It may change while it is checked."""

    def expire(self) -> None:
        """Is called at each check after that time, until the deadline is stopped."""


class CoarseTimeouts:
    """Creates time limits and checks them while there are any. Belongs to one event loop."""

    def __init__(self, check_seconds: float = CHECK_SECONDS) -> None:
        self._check_seconds = check_seconds
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_checking(self) -> bool:
        """Whether a check is scheduled."""
        return self._timer is not None

    def within(self, seconds: float) -> "Timeout":
        """Returns a limit for the current task: ``with timeouts.within(seconds): await …`` raises TimeoutError."""
        return Timeout(self, seconds)

    def start(self, deadline: Deadline) -> None:
        """Begins to check a deadline."""
        self._running.add(deadline)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._check_seconds, self._check)

    def stop(self, deadline: Deadline) -> None:
        """Ends the checking of a deadline."""
        self._running.discard(deadline)

    def _check(self) -> None:
        now = time.monotonic()
        for deadline in [deadline for deadline in self._running if deadline.ends_at <= now]:
            deadline.expire()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._check_seconds, self._check) if self._running else None


class Timeout:
    """Limits one wait of the current task: a context manager that raises TimeoutError when the time is over."""

    __slots__ = ("_expired", "_task", "_timeouts", "ends_at")

    def __init__(self, timeouts: CoarseTimeouts, seconds: float) -> None:
        self._timeouts = timeouts
        self._task = asyncio.current_task()
        self._expired = False
        self.ends_at = time.monotonic() + seconds

    def __enter__(self) -> None:
        self._timeouts.start(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._timeouts.stop(self)
        if not self._expired or self._task is None:
            return
        # A task that was cancelled by somebody else as well stays cancelled.
        if self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Ends the wait by cancelling its task."""
        self._timeouts.stop(self)
        self._expired = True
        if self._task is not None:
            self._task.cancel()
