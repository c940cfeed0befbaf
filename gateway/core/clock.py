"""Clocks: the wall clock without its jumps, a clock that never runs backwards, and the text forms of times."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol, overload

LATEST = 253_402_300_799
"""9999-12-31T23:59:59Z in seconds since the epoch: no later time can be written."""

WallClock = Callable[[], float]
"""Returns seconds since the epoch. Tests pass their own."""


class FloatArray(Protocol):
    """A list of floats, or an array in memory that worker processes share."""

    def __getitem__(self, index: int, /) -> float: ...

    def __setitem__(self, index: int, value: float, /) -> None: ...


JUMP_SECONDS = 1.0
"""A wall clock that moves by less than this against the machine's is being adjusted, and is followed at once."""
FOLLOW_AFTER_SECONDS = 60.0
"""For how long a wall clock must have been elsewhere until it is believed."""


machine_seconds: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Returns the seconds since the machine was started, also those in which it slept. Nobody can set this clock."""


class MachineClock:
    """The wall clock without its jumps: it advances with the machine's own clock.

    A wall clock that is set to another time is followed after a minute there. So a clock that is wrong for a moment neither
    pays back rates, nor ends windows of budgets, nor makes tokens expire.
    """

    def __init__(
        self,
        wall: WallClock = time.time,
        machine: Callable[[], float] = machine_seconds,
        state: FloatArray | None = None,
    ) -> None:
        """``state`` is an array of two numbers. Where workers share it, they show the same time; without it the clock is that
        of one process. ``machine`` tells seconds since any instant, the same for all workers.
        """
        self._wall = wall
        self._machine = machine
        self._state: FloatArray = [0.0, 0.0] if state is None else state
        """The wall clock's time at which the machine's clock was 0; and since when, by the machine's clock, the wall clock is
        elsewhere, or 0."""

    def __call__(self) -> float:
        """Returns seconds since the epoch."""
        machine, state = self._machine(), self._state
        offset = self._wall() - machine
        if abs(offset - state[0]) > JUMP_SECONDS and not self._is_believed(machine):
            return machine + state[0]
        state[0], state[1] = offset, 0.0
        return machine + offset

    def _is_believed(self, machine: float) -> bool:
        """Whether the wall clock has been elsewhere for long enough. The first time that is asked for always counts."""
        state = self._state
        if state[0] and not state[1]:
            state[1] = machine
        return not state[0] or machine - state[1] >= FOLLOW_AFTER_SECONDS


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


@overload
def to_iso(seconds: int) -> str: ...


@overload
def to_iso(seconds: None) -> None: ...


@overload
def to_iso(seconds: int | None) -> str | None: ...


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
