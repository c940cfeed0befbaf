"""Time: it never runs backwards, and its text forms go there and back."""

import multiprocessing
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import (
    FOLLOW_AFTER_SECONDS,
    JUMP_SECONDS,
    MachineClock,
    SteadyClock,
    from_iso,
    machine_seconds,
    to_iso,
    to_local_iso,
)
from gateway.storage.shared_memory import shared_floats


@given(st.lists(st.floats(0, 1e10), min_size=1))
def test_the_clock_never_runs_backwards(times: list[float]) -> None:
    walls = iter(times)
    clock = SteadyClock(lambda: next(walls))
    shown = [clock() for _ in times]
    assert shown == sorted(shown)
    assert shown[-1] == max(times)


class Machine:
    """A wall clock and the machine's own clock. ``ahead`` is by how much the wall clock is set wrong."""

    def __init__(self) -> None:
        self.seconds, self.ahead = 1000.0, 0.0

    def clock(self) -> MachineClock:
        return MachineClock(lambda: 1_800_000_000 + self.seconds + self.ahead, lambda: self.seconds)


def test_a_jump_of_the_wall_clock_that_is_undone_is_not_shown() -> None:
    machine = Machine()
    clock = machine.clock()
    began = clock()
    for ahead in (3600.0, -3600.0):
        machine.ahead = ahead
        for _ in range(59):
            machine.seconds += 1
            assert clock() == 1_800_000_000 + machine.seconds
        machine.ahead = 0.0
        assert clock() == 1_800_000_000 + machine.seconds
    assert clock() - began == 118


@pytest.mark.parametrize("ahead", [3600.0, -3600.0, 1.5])
def test_a_wall_clock_that_stays_elsewhere_for_a_minute_is_followed(ahead: float) -> None:
    machine = Machine()
    clock = machine.clock()
    clock()
    machine.ahead = ahead
    assert clock() == 1_800_000_000 + machine.seconds
    machine.seconds += FOLLOW_AFTER_SECONDS - 0.5
    assert clock() == 1_800_000_000 + machine.seconds
    machine.seconds += 0.5
    assert clock() == 1_800_000_000 + machine.seconds + ahead


def test_a_wall_clock_that_is_adjusted_is_followed_at_once() -> None:
    machine = Machine()
    clock = machine.clock()
    clock()
    for _ in range(10):
        machine.ahead += JUMP_SECONDS
        assert clock() == 1_800_000_000 + machine.seconds + machine.ahead


def test_workers_that_share_the_state_show_the_same_time() -> None:
    machine, state = Machine(), shared_floats(2)
    one, other = (
        MachineClock(lambda: machine.seconds + machine.ahead + 5000, lambda: machine.seconds, state) for _ in "ab"
    )
    one()
    machine.ahead = 900.0
    assert one() == other() == 6000.0
    machine.seconds += FOLLOW_AFTER_SECONDS
    assert one() == other() == 6960.0


def test_the_machines_clock_advances_and_the_default_clock_shows_the_wall_time() -> None:
    assert machine_seconds() <= machine_seconds()
    assert abs(MachineClock()() - time.time()) < JUMP_SECONDS


@given(st.integers(0, 253_402_300_799))
def test_a_time_goes_to_text_and_back(seconds: int) -> None:
    text = to_iso(seconds)
    assert text == f"{to_local_iso(seconds)}Z"
    assert from_iso(text) == from_iso(to_local_iso(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01", 0),
        ("1970-01-01T00:00:00.999999", 0),
        ("1970-01-01T02:00:00+02:00", 0),
        ("2027-01-15T08:00:00", 1_800_000_000),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, seconds: int) -> None:
    assert from_iso(text) == seconds


@pytest.mark.parametrize("text", ["", "now", "2027-02-30", "1800000000.5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_iso(text)


def test_no_time_is_none() -> None:
    assert to_iso(None) is None


def test_a_clock_set_back_revives_nothing_in_a_worker_that_takes_a_dead_ones_place() -> None:
    """The instant seen last is shared by all workers, also with one that is forked after the clock was set back."""
    wall = [5000.0]
    clock = SteadyClock(lambda: wall[0], shared_floats(1))
    context = multiprocessing.get_context("fork")
    seen: multiprocessing.SimpleQueue[float] = context.SimpleQueue()

    def worker(now: float) -> None:
        wall[0] = now
        seen.put(clock())

    for now in (9000.0, 1000.0):
        process = context.Process(target=worker, args=(now,))
        process.start()
        process.join(30)
        assert seen.get() == 9000.0
    assert clock() == 9000.0
