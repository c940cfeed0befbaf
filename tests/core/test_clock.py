"""Time: it never runs backwards, and its text forms go there and back."""

import multiprocessing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import SteadyClock, from_iso, to_iso, to_local_iso
from gateway.storage.shared_memory import shared_floats


@given(st.lists(st.floats(0, 1e10), min_size=1))
def test_the_clock_never_runs_backwards(times: list[float]) -> None:
    walls = iter(times)
    clock = SteadyClock(lambda: next(walls))
    shown = [clock() for _ in times]
    assert shown == sorted(shown)
    assert shown[-1] == max(times)


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
