"""Numbers in shared memory: nothing counted is lost, and nothing half written is ever read."""

import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observability.shared_metrics import (
    _HEADER_BYTES,
    CAPACITY,
    MAX_KEY_BYTES,
    OVERFLOW,
    SharedMetrics,
    WorkerMetrics,
)

FORK = multiprocessing.get_context("fork")


def started(arena: SharedMetrics, worker: int = 0) -> WorkerMetrics:
    page = arena.page(worker)
    page.start()
    return page


def read(arena: SharedMetrics) -> dict[str, float]:
    """What the only worker counts, without what every page has."""
    [numbers] = arena.read()
    return {key: value for key, value in numbers.items() if key != OVERFLOW}


def forked(run: Callable[..., None], *args: object) -> ForkProcess:
    process = FORK.Process(target=run, args=args)
    process.start()
    return process


def killed(process: ForkProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def test_a_series_keeps_its_slot() -> None:
    arena = SharedMetrics(1)
    page = started(arena)
    first, second = page.slot("first"), page.slot("second")
    assert first != second
    assert page.slot("first") == first
    page.add(first)
    page.add(first, 2.5)
    page.set(second, -7)
    page.values[second] += 1
    assert read(arena) == {"first": 3.5, "second": -6.0}


def test_only_who_has_begun_is_read() -> None:
    arena = SharedMetrics(3)
    arena.page(0).slot("x")
    assert arena.read() == []
    page = started(arena, 2)
    page.add(page.slot("x"), 3)
    assert arena.read() == [{OVERFLOW: 0.0, "x": 3.0}]


def test_a_table_grows_under_its_reader() -> None:
    arena = SharedMetrics(1)
    page = started(arena)
    for number in range(1000):
        page.set(page.slot(f"series {number}"), number)
        if number % 100 == 0:
            assert len(read(arena)) == number + 1
    assert read(arena) == {f"series {number}": float(number) for number in range(1000)}


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=60).filter(lambda key: key != OVERFLOW),
        st.floats(allow_nan=False),
    )
)
def test_any_key_and_number_come_back(numbers: dict[str, float]) -> None:
    arena = SharedMetrics(1)
    page = started(arena)
    for key, number in numbers.items():
        page.set(page.slot(key), number)
    kept = {key: number for key, number in numbers.items() if len(key.encode()) <= MAX_KEY_BYTES}
    assert read(arena) == kept


def test_what_finds_no_room_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    arena = SharedMetrics(2)
    page = started(arena)
    beside = started(arena, 1)
    beside.add(beside.slot("mine"), 5)
    for number in range(CAPACITY + 9):
        page.add(page.slot(f"series {number}"))
    page.add(page.slot("a gauge", is_gauge=True))
    mine, other = arena.read()
    assert len(mine) == CAPACITY
    assert mine.pop(OVERFLOW) == 11.0, "nine, the gauge, and one whose place the counter of them has"
    assert set(mine.values()) == {1.0}
    assert other == {OVERFLOW: 0.0, "mine": 5.0}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    page.add(page.slot("series 7"), 1)
    assert arena.read()[0]["series 7"] == 2.0


def test_a_key_that_is_too_long_has_no_room_either() -> None:
    arena = SharedMetrics(1)
    page = started(arena)
    page.add(page.slot("é" * (MAX_KEY_BYTES // 2)))
    page.add(page.slot("é" * (MAX_KEY_BYTES // 2) + "x"))
    assert arena.read() == [{OVERFLOW: 1.0, "é" * (MAX_KEY_BYTES // 2): 1.0}]


def _count(arena: SharedMetrics, worker: int, times: int) -> None:
    page = started(arena, worker)
    slot, by_hand = page.slot("both"), page.slot(f"of {worker}")
    for _ in range(times):
        page.add(slot)
        page.values[by_hand] += 1.0


def test_nothing_that_two_processes_count_is_lost() -> None:
    arena = SharedMetrics(2)
    workers = [forked(_count, arena, worker, 100_000) for worker in range(2)]
    while any(worker.is_alive() for worker in workers):
        for numbers in arena.read():
            assert numbers.get("both", 0.0) <= 100_000
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    first, second = arena.read()
    assert first["both"] == second["both"] == first["of 0"] == second["of 1"] == 100_000
    assert "of 1" not in first


def test_one_worker_reads_what_another_counts() -> None:
    arena = SharedMetrics(2)
    page = started(arena)
    slot = page.slot("registered before the other was forked")
    heard: multiprocessing.SimpleQueue[dict[str, float]] = FORK.SimpleQueue()
    asked = FORK.Event()

    def other() -> None:
        started(arena, 1)
        asked.wait(30)
        heard.put(arena.read()[0])

    process = forked(other)
    page.add(slot, 2)
    page.set(page.slot("registered after"), 3)
    asked.set()
    assert heard.get() == {OVERFLOW: 0.0, "registered before the other was forked": 2.0, "registered after": 3.0}
    process.join(30)


def _count_and_wait(arena: SharedMetrics, ready: "multiprocessing.SimpleQueue[bool]") -> None:
    page = started(arena)
    page.add(page.slot("counter"), 2)
    page.add(page.slot("gauge", is_gauge=True), 5)
    ready.put(True)
    time.sleep(60)


def test_counters_outlive_their_worker_and_gauges_do_not() -> None:
    arena = SharedMetrics(1)
    for life in (1, 2, 3):
        ready: multiprocessing.SimpleQueue[bool] = (
            FORK.SimpleQueue()
        )  # of its own: who is killed may hold its lock for ever
        process = forked(_count_and_wait, arena, ready)
        assert ready.get()
        killed(process)
        assert read(arena) == {"counter": 2.0 * life, "gauge": 5.0}
    page = started(arena)
    assert read(arena) == {"counter": 6.0, "gauge": 0.0}
    page.add(page.slot("gauge", is_gauge=True), 1)
    page.reset_gauges()
    assert read(arena) == {"counter": 6.0, "gauge": 0.0}


def test_a_record_without_its_count_is_not_there_and_is_written_over() -> None:
    arena = SharedMetrics(1)
    page = started(arena)
    page.add(page.slot("whole"), 4)
    page._memory.write_record(2, b"killed before it was counted", is_gauge=True)
    page.values[2] = 9.0
    assert read(arena) == {"whole": 4.0}
    again = started(arena)
    assert again.slot("next") == 2
    assert read(arena) == {"whole": 4.0, "next": 0.0}


@pytest.mark.parametrize("byte", [0, 4, 6, 8, 12])
def test_a_record_that_cannot_be_read_is_passed_over(byte: int) -> None:
    """As a processor may show it that has brought over the count before the record."""
    arena = SharedMetrics(1)
    page = started(arena)
    page.add(page.slot("first"), 1)
    damaged = page.slot("second", is_gauge=True)
    page.add(page.slot("third"), 3)
    records = page._memory._records
    at = damaged * (len(records) // CAPACITY) + byte
    records[at] ^= 1
    assert read(arena) == {"first": 1.0, "third": 3.0}
    again = started(arena)
    again.add(again.slot("second"), 7)
    assert read(arena) == {"first": 1.0, "third": 3.0, "second": 7.0}
    assert again.slot("third") == page.slot("third")


def test_a_record_of_zeros_is_no_record() -> None:
    arena = SharedMetrics(1)
    page = started(arena)
    page._memory.header[1] = 3
    assert read(arena) == {}
    started(arena).slot("x")
    assert read(arena) == {"x": 0.0}


def _register_for_ever(arena: SharedMetrics, ready: "multiprocessing.SimpleQueue[bool]") -> None:
    page = started(arena)
    ready.put(True)
    for number in itertools.count():
        page.add(page.slot(f"series {number % (CAPACITY - 100)}"))


def test_a_worker_killed_at_any_moment_leaves_a_table_that_goes_on() -> None:
    arena = SharedMetrics(1)
    before: dict[str, float] = {}
    for life in range(20):
        ready: multiprocessing.SimpleQueue[bool] = (
            FORK.SimpleQueue()
        )  # of its own: who is killed may hold its lock for ever
        process = forked(_register_for_ever, arena, ready)
        assert ready.get()
        time.sleep(0.0005 * life)
        read(arena)
        killed(process)
        now = read(arena)
        assert all(now[key] >= value for key, value in before.items()), "a counter never goes down"
        assert list(now) == [f"series {number}" for number in range(len(now))]
        before = now
    page = started(arena)
    page.add(page.slot("after"))
    assert read(arena)["after"] == 1.0


def test_two_who_write_one_page_in_turn_see_each_others_series() -> None:
    arena = SharedMetrics(1)
    one, other = started(arena), started(arena)
    slot = one.slot("x")
    assert other.slot("x") == slot
    assert other.slot("y") == one.slot("y") == slot + 1


_SHARED_MEMORY = """
import re
from pathlib import Path
from gateway.observability.shared_metrics import SharedMetrics
arena = SharedMetrics(256)
for worker in range(256):
    arena.page(worker).start()
assert len(arena.read()) == 256
print(re.search(r"RssShmem:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say it there")
def test_a_page_takes_the_memory_that_it_needs() -> None:
    """In a process of its own, where nothing else is shared."""
    kilobytes = int(subprocess.run([sys.executable, "-c", _SHARED_MEMORY], capture_output=True, check=True).stdout)
    assert 0 < kilobytes < 256 * 32, "of 256 MiB of addresses"


def test_numbers_are_whole_words() -> None:
    """What is not aligned could be read in halves."""
    assert _HEADER_BYTES % 8 == 0
