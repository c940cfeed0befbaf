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
    CAPACITY,
    HEADER_BYTES,
    MAX_KEY_BYTES,
    OVERFLOW,
    SharedMetrics,
    WorkerMetrics,
)

FORK = multiprocessing.get_context("fork")


def started(shared: SharedMetrics, number: int = 0) -> WorkerMetrics:
    worker = shared.worker(number)
    worker.start()
    return worker


def read(shared: SharedMetrics) -> dict[str, float]:
    """What the only worker counts, without what every worker has."""
    [numbers] = shared.read()
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
    shared = SharedMetrics(1)
    worker = started(shared)
    first, second = worker.slot("first"), worker.slot("second")
    assert first != second
    assert worker.slot("first") == first
    worker.add(first)
    worker.add(first, 2.5)
    worker.values[second] = -7
    worker.values[second] += 1
    assert read(shared) == {"first": 3.5, "second": -6.0}


def test_only_who_has_begun_is_read() -> None:
    shared = SharedMetrics(3)
    shared.worker(0).slot("x")
    assert shared.read() == []
    worker = started(shared, 2)
    worker.add(worker.slot("x"), 3)
    assert shared.read() == [{OVERFLOW: 0.0, "x": 3.0}]


def test_a_table_grows_under_its_reader() -> None:
    shared = SharedMetrics(1)
    worker = started(shared)
    for number in range(1000):
        worker.values[worker.slot(f"series {number}")] = number
        if number % 100 == 0:
            assert len(read(shared)) == number + 1
    assert read(shared) == {f"series {number}": float(number) for number in range(1000)}


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=60).filter(lambda key: key != OVERFLOW),
        st.floats(allow_nan=False),
    )
)
def test_any_key_and_number_come_back(numbers: dict[str, float]) -> None:
    shared = SharedMetrics(1)
    worker = started(shared)
    for key, number in numbers.items():
        worker.values[worker.slot(key)] = number
    kept = {key: number for key, number in numbers.items() if len(key.encode()) <= MAX_KEY_BYTES}
    assert read(shared) == kept


def test_what_finds_no_space_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    shared = SharedMetrics(2)
    worker = started(shared)
    beside = started(shared, 1)
    beside.add(beside.slot("mine"), 5)
    for number in range(CAPACITY + 9):
        worker.add(worker.slot(f"series {number}"))
    worker.add(worker.slot("a gauge", is_gauge=True))
    mine, other = shared.read()
    assert len(mine) == CAPACITY
    assert mine.pop(OVERFLOW) == 11.0, "nine, the gauge, and one whose place the counter of them has"
    assert set(mine.values()) == {1.0}
    assert other == {OVERFLOW: 0.0, "mine": 5.0}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    worker.add(worker.slot("series 7"), 1)
    assert shared.read()[0]["series 7"] == 2.0


def test_a_key_that_is_too_long_has_no_space_either() -> None:
    shared = SharedMetrics(1)
    worker = started(shared)
    worker.add(worker.slot("é" * (MAX_KEY_BYTES // 2)))
    worker.add(worker.slot("é" * (MAX_KEY_BYTES // 2) + "x"))
    assert shared.read() == [{OVERFLOW: 1.0, "é" * (MAX_KEY_BYTES // 2): 1.0}]


def _count(shared: SharedMetrics, number: int, times: int) -> None:
    worker = started(shared, number)
    slot, by_hand = worker.slot("both"), worker.slot(f"of {number}")
    for _ in range(times):
        worker.add(slot)
        worker.values[by_hand] += 1.0


def test_nothing_that_two_processes_count_is_lost() -> None:
    shared = SharedMetrics(2)
    workers = [forked(_count, shared, worker, 100_000) for worker in range(2)]
    while any(worker.is_alive() for worker in workers):
        for numbers in shared.read():
            assert numbers.get("both", 0.0) <= 100_000
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    first, second = shared.read()
    assert first["both"] == second["both"] == first["of 0"] == second["of 1"] == 100_000
    assert "of 1" not in first


def test_one_worker_reads_what_another_counts() -> None:
    shared = SharedMetrics(2)
    worker = started(shared)
    slot = worker.slot("registered before the other was forked")
    heard: multiprocessing.SimpleQueue[dict[str, float]] = FORK.SimpleQueue()
    asked = FORK.Event()

    def other() -> None:
        started(shared, 1)
        asked.wait(30)
        heard.put(shared.read()[0])

    process = forked(other)
    worker.add(slot, 2)
    worker.values[worker.slot("registered after")] = 3
    asked.set()
    assert heard.get() == {OVERFLOW: 0.0, "registered before the other was forked": 2.0, "registered after": 3.0}
    process.join(30)


def _count_and_wait(shared: SharedMetrics, ready: "multiprocessing.SimpleQueue[bool]") -> None:
    worker = started(shared)
    worker.add(worker.slot("counter"), 2)
    worker.add(worker.slot("gauge", is_gauge=True), 5)
    ready.put(True)
    time.sleep(60)


def test_counters_outlive_their_worker_and_gauges_do_not() -> None:
    shared = SharedMetrics(1)
    for life in (1, 2, 3):
        ready: multiprocessing.SimpleQueue[bool] = (
            FORK.SimpleQueue()
        )  # of its own: who is killed may hold its lock for ever
        process = forked(_count_and_wait, shared, ready)
        assert ready.get()
        killed(process)
        assert read(shared) == {"counter": 2.0 * life, "gauge": 5.0}
    worker = started(shared)
    assert read(shared) == {"counter": 6.0, "gauge": 0.0}
    worker.add(worker.slot("gauge", is_gauge=True), 1)
    worker.reset_gauges()
    assert read(shared) == {"counter": 6.0, "gauge": 0.0}


def test_a_record_without_its_count_is_not_there_and_is_written_over() -> None:
    shared = SharedMetrics(1)
    worker = started(shared)
    worker.add(worker.slot("whole"), 4)
    worker.page.write_record(2, b"killed before it was counted", is_gauge=True)
    worker.values[2] = 9.0
    assert read(shared) == {"whole": 4.0}
    again = started(shared)
    assert again.slot("next") == 2
    assert read(shared) == {"whole": 4.0, "next": 0.0}


@pytest.mark.parametrize("byte", [0, 4, 6, 8, 12])
def test_a_record_that_cannot_be_read_is_passed_over(byte: int) -> None:
    """As a processor may show it that has brought over the count before the record."""
    shared = SharedMetrics(1)
    worker = started(shared)
    worker.add(worker.slot("first"), 1)
    damaged = worker.slot("second", is_gauge=True)
    worker.add(worker.slot("third"), 3)
    records = worker.page.records
    at = damaged * (len(records) // CAPACITY) + byte
    records[at] ^= 1
    assert read(shared) == {"first": 1.0, "third": 3.0}
    again = started(shared)
    again.add(again.slot("second"), 7)
    assert read(shared) == {"first": 1.0, "third": 3.0, "second": 7.0}
    assert again.slot("third") == worker.slot("third")


def test_a_record_of_zeros_is_no_record() -> None:
    shared = SharedMetrics(1)
    worker = started(shared)
    worker.page.count = 3
    assert read(shared) == {}
    started(shared).slot("x")
    assert read(shared) == {"x": 0.0}


def _register_for_ever(shared: SharedMetrics, ready: "multiprocessing.SimpleQueue[bool]") -> None:
    worker = started(shared)
    ready.put(True)
    for number in itertools.count():
        worker.add(worker.slot(f"series {number % (CAPACITY - 100)}"))


def test_a_worker_killed_at_any_moment_leaves_a_table_that_goes_on() -> None:
    shared = SharedMetrics(1)
    before: dict[str, float] = {}
    for life in range(20):
        ready: multiprocessing.SimpleQueue[bool] = (
            FORK.SimpleQueue()
        )  # of its own: who is killed may hold its lock for ever
        process = forked(_register_for_ever, shared, ready)
        assert ready.get()
        time.sleep(0.0005 * life)
        read(shared)
        killed(process)
        now = read(shared)
        assert all(now[key] >= value for key, value in before.items()), "a counter never goes down"
        assert list(now) == [f"series {number}" for number in range(len(now))]
        before = now
    worker = started(shared)
    worker.add(worker.slot("after"))
    assert read(shared)["after"] == 1.0


def test_two_who_write_one_page_in_turn_see_each_others_series() -> None:
    shared = SharedMetrics(1)
    one, other = started(shared), started(shared)
    slot = one.slot("x")
    assert other.slot("x") == slot
    assert other.slot("y") == one.slot("y") == slot + 1


_SHARED_MEMORY = """
import re
from pathlib import Path
from gateway.observability.shared_metrics import SharedMetrics
shared = SharedMetrics(256)
for worker in range(256):
    shared.worker(worker).start()
assert len(shared.read()) == 256
print(re.search(r"RssShmem:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say it there")
def test_a_page_takes_the_memory_that_it_needs() -> None:
    """In a process of its own, where nothing else is shared."""
    kilobytes = int(subprocess.run([sys.executable, "-c", _SHARED_MEMORY], capture_output=True, check=True).stdout)
    assert 0 < kilobytes < 256 * 32, "of 256 MiB of addresses"


def test_numbers_are_whole_words() -> None:
    """What is not aligned could be read in halves."""
    assert HEADER_BYTES % 8 == 0
