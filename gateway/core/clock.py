"""Wall-clock time that never runs backwards, and its text forms."""

import mmap
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

LATEST = 253_402_300_799
"""9999-12-31T23:59:59Z: no later time can be written."""

_FLOAT_BYTES = 8

WallClock = Callable[[], float]
"""Seconds since the epoch. Tests pass their own."""


class SteadyClock:
    """The wall clock, held at the latest instant seen: a clock set back must not revive an expired token.

    Made before workers are forked, it holds for all of them, and for those that replace dead ones.
    """

    def __init__(self, wall: WallClock = time.time) -> None:
        self._wall = wall
        self._latest = memoryview(mmap.mmap(-1, _FLOAT_BYTES)).cast("d")

    def __call__(self) -> float:
        now = max(self._wall(), self._latest[0])
        self._latest[0] = now
        return now


def to_iso(seconds: int | None) -> str | None:
    """``2026-01-31T10:30:00Z``, or None."""
    return None if seconds is None else to_local_iso(seconds) + "Z"


def to_local_iso(seconds: int) -> str:
    """``2026-01-31T10:30:00``: UTC without the letter, as the command line prints it."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def from_iso(text: str) -> int:
    """Seconds since the epoch. A time without a zone is UTC. Raises ValueError with the reason."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp())
