"""The ledger behind the requests: nothing is lost to a bad disk or a cancelled write, and nothing counts twice."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.observability.metrics import Metrics
from gateway.observability.shared_metrics import SharedMetrics
from gateway.usage import ledger as ledger_module
from gateway.usage.ledger import ALMOST_FULL, MAX_WAITING, PRUNE_BATCH, Ledger
from gateway.usage.models import LedgerEntry
from gateway.usage.store import UsageStoreError
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore
from tests.support.tokens import NOW, Clock
from tests.support.usage import count, expected_sums, hour_sums, ledger_entry


class WatchedStore(SqliteUsageStore):
    """A store that reports its writes, waits where it is told to, and fails before or after a write."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.was_written = threading.Event()
        self.fails: str | None = None
        self.sizes: list[int] = []

    def write(self, entries: Sequence[LedgerEntry]) -> int:
        self.began.set()
        assert self.go_on.wait(10)
        if self.fails == "before":
            raise OSError(28, "No space left on device")
        new = super().write(entries)
        self.sizes.append(len(entries))
        self.was_written.set()
        if self.fails == "after":
            raise OSError(5, "Input/output error")
        return new


class Recording:
    """A ledger, its store and its metrics."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = WatchedStore(path)
        self.clock = Clock()
        self.shared = SharedMetrics(1)
        self.metrics = Metrics(self.shared)
        self.ledger = self.with_retention(0)

    def with_retention(self, days: int) -> Ledger:
        return Ledger(self.file, self.metrics, days, self.clock)

    def record(self, *numbers: int, **fields: Any) -> None:
        for number in numbers:
            self.ledger.record(ledger_entry(number, **fields))

    @property
    def shown_waiting(self) -> float:
        """What the metrics show."""
        return self.shared.read()[0]["gateway_ledger_waiting"]

    @property
    def write_failures(self) -> float:
        return self.shared.read()[0]["gateway_ledger_write_failures_total"]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path / LEDGER_FILE)


async def test_entries_are_written(recording: Recording) -> None:
    recording.record(1, 2)
    assert (recording.ledger.waiting, recording.path.exists()) == (2, False)
    await recording.ledger.flush()
    assert (recording.ledger.waiting, recording.shown_waiting, recording.ledger.is_up) == (0, 0, True)
    assert hour_sums(recording.path) == expected_sums([ledger_entry(1), ledger_entry(2)])


async def test_without_entries_nothing_is_written(recording: Recording) -> None:
    await recording.ledger.flush()
    await recording.ledger.drain()
    assert not recording.path.exists()


async def test_many_are_written_in_pieces(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BATCH", 2)
    recording.ledger = recording.with_retention(0)
    recording.record(*range(5))
    await recording.ledger.flush()
    assert recording.file.sizes == [2, 2, 1]
    assert count(recording.path) == 5


@pytest.mark.parametrize("fails", ["before", "after"])
async def test_entries_wait_while_the_disk_is_bad_and_count_once(
    recording: Recording, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether a write that failed was made after all is not known."""
    recording.file.fails = fails
    for number in range(3):
        recording.record(number)
        await recording.ledger.flush()
    assert (recording.ledger.waiting, recording.shown_waiting, recording.ledger.is_up) == (3, 3, False)
    assert recording.write_failures == 3
    assert len(caplog.records) == 1, "one line, however long it lasts"
    recording.file.fails = None
    await recording.ledger.flush()
    assert (recording.ledger.waiting, recording.shown_waiting, recording.ledger.is_up) == (0, 0, True)
    assert hour_sums(recording.path) == expected_sums([ledger_entry(number) for number in range(3)])
    recording.file.fails = fails
    recording.record(9)
    await recording.ledger.flush()
    assert len(caplog.records) == 2, "the next trouble is news again"


@pytest.mark.parametrize("fails", [None, "before", "after"])
async def test_a_cancelled_write_loses_nothing_and_counts_nothing_twice(
    recording: Recording, fails: str | None
) -> None:
    recording.file.go_on.clear()
    recording.file.fails = fails
    recording.record(1)
    flush = asyncio.create_task(recording.ledger.flush())
    assert await asyncio.to_thread(recording.file.began.wait, 10)
    recording.record(2)
    flush.cancel()
    recording.file.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flush
    recording.file.fails = None
    await recording.ledger.drain()
    assert hour_sums(recording.path) == expected_sums([ledger_entry(1), ledger_entry(2)])


async def test_two_flushes_at_once_take_turns(recording: Recording) -> None:
    recording.record(1, 2, 3)
    await asyncio.gather(recording.ledger.flush(), recording.ledger.flush(), recording.ledger.drain())
    assert recording.file.sizes == [3]
    assert recording.ledger.waiting == 0


async def test_the_last_write_closes_the_store(recording: Recording) -> None:
    recording.record(1)
    await recording.ledger.flush()
    beside = recording.path.with_name(f"{recording.path.name}-wal")
    assert beside.exists()
    await recording.ledger.drain()
    assert not beside.exists()


async def test_what_cannot_be_written_at_the_end_is_said(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    recording.file.fails = "before"
    recording.record(1, 2)
    await recording.ledger.drain()
    assert caplog.records[-1].getMessage() == "ledger entries lost at shutdown"
    assert caplog.records[-1].__dict__["count"] == 2


async def test_what_waits_is_bounded_and_what_is_lost_is_said(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_WAITING", 2)
    recording.record(1, 2, 3, 4, 5)
    [record] = caplog.records
    assert (recording.ledger.waiting, record.__dict__["waiting"]) == (2, 2)
    assert record.getMessage() == "too many ledger entries wait, further ones are lost"
    await recording.ledger.flush()
    assert caplog.records[-1].getMessage() == "ledger entries were lost while they could not be written"
    assert caplog.records[-1].__dict__["entries"] == 3
    recording.record(5)
    await recording.ledger.flush()
    assert (count(recording.path), len(caplog.records)) == (3, 2)
    recording.record(6, 7, 8)
    assert caplog.records[-1].getMessage() == "too many ledger entries wait, further ones are lost"


async def run_until(ledger: Ledger, happened: Callable[[], bool]) -> None:
    task = asyncio.create_task(ledger.run())
    try:
        assert await asyncio.to_thread(happened)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class LongStream:
    """A request that still streams."""

    def settle_so_far(self) -> LedgerEntry | None:
        return ledger_entry(1, cost=7, partial=True)


async def test_it_settles_what_streams_by_itself_and_takes_over_what_streamed(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "FLUSH_SECONDS", 0.001)
    written, taken_over = threading.Event(), threading.Event()
    write_running, take_over = recording.file.write_running, recording.file.take_over
    monkeypatch.setattr(recording.file, "write_running", lambda entries: (write_running(entries), written.set()))
    recording.ledger.running.add(LongStream())
    await run_until(recording.ledger, lambda: written.wait(10))
    assert recording.file.totals("tok_1").cost == 7
    recording.file.close()  # as if the process had ended
    next_one = Recording(recording.path)
    monkeypatch.setattr(next_one.file, "take_over", lambda: (take_over(), taken_over.set())[0])
    await run_until(next_one.ledger, lambda: taken_over.wait(10))
    assert count(recording.path) == 1


async def test_it_writes_by_itself(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "FLUSH_SECONDS", 0.001)
    recording.record(1)
    await run_until(recording.ledger, lambda: recording.file.was_written.wait(10))
    assert count(recording.path) == 1
    await recording.ledger.drain()


async def test_it_prunes_by_itself(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "FLUSH_SECONDS", 0.001)
    is_pruned = threading.Event()

    def prune(_before_ms: int, _limit: int) -> int:
        is_pruned.set()
        return 0

    monkeypatch.setattr(recording.file, "prune", prune)
    await run_until(recording.with_retention(1), lambda: is_pruned.wait(10))


class Pruned:
    """Keeps what pruning was asked for."""

    def __init__(self, recording: Recording, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
        self.asked: list[int] = []
        self.fails = fails
        self.removed = 0
        monkeypatch.setattr(recording.file, "prune", self)

    def __call__(self, before_ms: int, limit: int) -> int:
        assert limit == PRUNE_BATCH
        self.asked.append(before_ms)
        if self.fails:
            raise UsageStoreError("no")
        return self.removed


async def test_old_entries_are_removed_once_an_hour(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = Pruned(recording, monkeypatch)
    ledger = recording.with_retention(30)
    for _ in range(3):
        await ledger.prune()
    assert pruned.asked == [(NOW - 30 * 86_400) * 1000]
    recording.clock.now += 3600
    pruned.removed = PRUNE_BATCH
    for _ in range(3):
        await ledger.prune()
    assert len(pruned.asked) == 4, "as long as there are more, it goes on"


async def test_without_a_retention_nothing_is_removed(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = Pruned(recording, monkeypatch)
    await recording.ledger.prune()
    assert pruned.asked == []


async def test_pruning_that_fails_does_not_end_the_writing(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Pruned(recording, monkeypatch, fails=True)
    await recording.with_retention(1).prune()
    assert caplog.records[-1].getMessage() == "old entries of the ledger cannot be removed"
    assert caplog.records[-1].__dict__["problem"] == "no"


async def test_pruning_leaves_what_is_young(recording: Recording) -> None:
    ledger = recording.with_retention(1)
    ledger.record(ledger_entry(1, at=(NOW - 90_000) * 1000))
    ledger.record(ledger_entry(2))
    await ledger.flush()
    await ledger.prune()
    assert count(recording.path) == 1
    assert sum(sums[0] for sums in hour_sums(recording.path).values()) == 2
    await ledger.drain()


async def test_after_a_failure_nothing_is_pruned_until_a_write_succeeds(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned = Pruned(recording, monkeypatch)
    ledger = recording.with_retention(1)
    recording.file.fails = "before"
    ledger.record(ledger_entry(1))
    await ledger.flush()
    await ledger.prune()
    assert pruned.asked == []
    recording.file.fails = None
    await ledger.flush()
    await ledger.prune()
    assert len(pruned.asked) == 1


async def test_pruning_goes_on_after_exactly_an_hour(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = Pruned(recording, monkeypatch)
    pruned.removed = PRUNE_BATCH - 1
    ledger = recording.with_retention(1)
    await ledger.prune()
    recording.clock.now += 3599
    await ledger.prune()
    assert len(pruned.asked) == 1
    recording.clock.now += 1
    await ledger.prune()
    assert len(pruned.asked) == 2


async def test_it_is_full_from_a_number_of_entries_on(recording: Recording) -> None:
    entry = ledger_entry(1)
    for _ in range(ALMOST_FULL - 1):
        recording.ledger.record(entry)
    assert not recording.ledger.is_full
    recording.ledger.record(entry)
    assert recording.ledger.is_full
    recording.ledger.record(entry)
    assert recording.ledger.is_full
    assert MAX_WAITING > ALMOST_FULL, "running requests still find place for their entries"


async def test_entries_that_are_being_written_still_count(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "ALMOST_FULL", 3)
    recording.file.go_on.clear()
    recording.record(1, 2, 3)
    flush = asyncio.create_task(recording.ledger.flush())
    assert await asyncio.to_thread(recording.file.began.wait, 10)
    assert (recording.ledger.waiting, recording.ledger.is_full) == (3, True)
    recording.file.go_on.set()
    await flush
    assert (recording.ledger.waiting, recording.ledger.is_full) == (0, False)
