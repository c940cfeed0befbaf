"""Wall-clock time that never runs backwards, and its text forms."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

LATEST = 253_402_300_799
"""9999-12-31T23:59:59Z in seconds since the epoch: no later time can be written."""

WallClock = Callable[[], float]
"""Returns seconds since the epoch. Tests pass their own."""


class FloatArray(Protocol):
    """A list of floats, or an array in memory that worker processes share."""

    def __getitem__(self, index: int, /) -> float: ...

    def __setitem__(self, index: int, value: float, /) -> None: ...


class SteadyClock:
    """The wall clock, kept at the latest time that it has shown: a clock that is set back must not revive an expired token."""

    def __init__(self, wall: WallClock = time.time, latest: FloatArray | None = None) -> None:
        """``latest`` is an array whose first number is the latest time shown. Where workers share it, the time of one is never
        before the time of another. Without it the clock is that of one process.
        """
        self._wall = wall
        self._latest: FloatArray = [0.0] if latest is None else latest

    def __call__(self) -> float:
        """Returns seconds since the epoch."""
        now = max(self._wall(), self._latest[0])
        self._latest[0] = now
        return now


def to_iso(seconds: int | None) -> str | None:
    """Returns a time as ``2026-01-31T10:30:00Z``; None for None. ``seconds`` since the epoch."""
    return None if seconds is None else to_local_iso(seconds) + "Z"


def to_local_iso(seconds: int) -> str:
    """Returns a time in UTC as ``2026-01-31T10:30:00``, as the command line prints it. ``seconds`` since the epoch."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def from_iso(text: str) -> int:
    """Returns whole seconds since the epoch. A time without a zone is in UTC. Raises ValueError with the reason."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp())
