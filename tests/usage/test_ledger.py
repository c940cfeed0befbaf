"""The ledger behind the requests: nothing is lost to a bad disk or a cancelled write, and nothing counts twice."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.usage import ledger as room
from gateway.usage.ledger import Ledger
from gateway.usage.models import LedgerEntry
from gateway.usage.stores.sqlite import LEDGER_FILE, PRUNED_AT_ONCE, SqliteUsageStore
from tests.support.tokens import NOW, Clock
from tests.usage.stores.test_sqlite import count, expected_sums, hour_sums, made


class Number:
    """A gauge and a counter."""

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        self.value = value

    def inc(self) -> None:
        self.value += 1


class Counts:
    """Stands in for the metrics."""

    def __init__(self) -> None:
        self.ledger_waiting = Number()
        self.ledger_write_failures = Number()


class WatchedFile(SqliteUsageStore):
    """Says when it was written, waits for a word if it has to, and fails as it is told: before the write or after it."""

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


class Desk:
    """A ledger and its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = WatchedFile(path)
        self.clock = Clock()
        self.counts = Counts()
        self.ledger = self.with_retention(0)

    def with_retention(self, days: int) -> Ledger:
        return Ledger(self.file, self.counts, days, self.clock)  # type: ignore[arg-type]

    def record(self, *numbers: int, **fields: Any) -> None:
        for number in numbers:
            self.ledger.record(made(number, **fields))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / LEDGER_FILE)


async def test_entries_are_written(desk: Desk) -> None:
    desk.record(1, 2)
    assert (desk.ledger.waiting, desk.path.exists()) == (2, False)
    await desk.ledger.flush()
    assert (desk.ledger.waiting, desk.counts.ledger_waiting.value, desk.ledger.is_up) == (0, 0, True)
    assert hour_sums(desk.path) == expected_sums([made(1), made(2)])


async def test_without_entries_nothing_is_written(desk: Desk) -> None:
    await desk.ledger.flush()
    await desk.ledger.drain()
    assert not desk.path.exists()


async def test_many_are_written_in_pieces(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BATCH", 2)
    desk.record(*range(5))
    await desk.ledger.flush()
    assert desk.file.sizes == [2, 2, 1]
    assert count(desk.path) == 5


@pytest.mark.parametrize("fails", ["before", "after"])
async def test_entries_wait_while_the_disk_is_bad_and_count_once(
    desk: Desk, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether a write that failed was made after all is not known."""
    desk.file.fails = fails
    for number in range(3):
        desk.record(number)
        await desk.ledger.flush()
    assert (desk.ledger.waiting, desk.counts.ledger_waiting.value, desk.ledger.is_up) == (3, 3, False)
    assert desk.counts.ledger_write_failures.value == 3
    assert len(caplog.records) == 1, "one line, however long it lasts"
    desk.file.fails = None
    await desk.ledger.flush()
    assert (desk.ledger.waiting, desk.counts.ledger_waiting.value, desk.ledger.is_up) == (0, 0, True)
    assert hour_sums(desk.path) == expected_sums([made(number) for number in range(3)])
    desk.file.fails = fails
    desk.record(9)
    await desk.ledger.flush()
    assert len(caplog.records) == 2, "the next trouble is news again"


@pytest.mark.parametrize("fails", [None, "before", "after"])
async def test_a_cancelled_write_loses_nothing_and_counts_nothing_twice(desk: Desk, fails: str | None) -> None:
    desk.file.go_on.clear()
    desk.file.fails = fails
    desk.record(1)
    flush = asyncio.create_task(desk.ledger.flush())
    assert await asyncio.to_thread(desk.file.began.wait, 10)
    desk.record(2)
    flush.cancel()
    desk.file.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flush
    desk.file.fails = None
    await desk.ledger.drain()
    assert hour_sums(desk.path) == expected_sums([made(1), made(2)])


async def test_two_flushes_at_once_take_turns(desk: Desk) -> None:
    desk.record(1, 2, 3)
    await asyncio.gather(desk.ledger.flush(), desk.ledger.flush(), desk.ledger.drain())
    assert desk.file.sizes == [3]
    assert desk.ledger.waiting == 0


async def test_what_cannot_be_written_at_the_end_is_said(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.file.fails = "before"
    desk.record(1, 2)
    await desk.ledger.drain()
    assert caplog.records[-1].getMessage() == "ledger entries lost at shutdown"
    assert caplog.records[-1].__dict__["entries"] == 2


async def test_what_waits_is_bounded_and_what_is_lost_is_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "MAX_WAITING", 2)
    desk.record(1, 2, 3, 4)
    assert (desk.ledger.waiting, len(caplog.records)) == (2, 1)
    await desk.ledger.flush()
    assert caplog.records[-1].__dict__["entries"] == 2
    desk.record(5)
    await desk.ledger.flush()
    assert (count(desk.path), len(caplog.records)) == (3, 2)


async def run_until(ledger: Ledger, happened: Callable[[], bool]) -> None:
    task = asyncio.create_task(ledger.run())
    try:
        assert await asyncio.to_thread(happened)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_it_writes_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FLUSH_SECONDS", 0.001)
    desk.record(1)
    await run_until(desk.ledger, lambda: desk.file.was_written.wait(10))
    assert count(desk.path) == 1
    await desk.ledger.drain()


class Pruned:
    """Keeps what pruning was asked for."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
        self.asked: list[int] = []
        self.fails = fails
        self.removed = 0
        monkeypatch.setattr(desk.file, "prune_some", self)

    def __call__(self, before: int) -> int:
        self.asked.append(before)
        if self.fails:
            raise OSError("no")
        return self.removed


async def test_old_entries_are_removed_once_an_hour(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = Pruned(desk, monkeypatch)
    ledger = desk.with_retention(30)
    for _ in range(3):
        await ledger._prune()
    assert pruned.asked == [(NOW - 30 * 86_400) * 1000]
    desk.clock.now += 3600
    pruned.removed = PRUNED_AT_ONCE
    for _ in range(3):
        await ledger._prune()
    assert len(pruned.asked) == 4, "as long as there are more, it goes on"


async def test_without_a_retention_nothing_is_removed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = Pruned(desk, monkeypatch)
    await desk.ledger._prune()
    assert pruned.asked == []


async def test_pruning_that_fails_does_not_end_the_writing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Pruned(desk, monkeypatch, fails=True)
    await desk.with_retention(1)._prune()
    assert caplog.records[-1].getMessage() == "old entries of the ledger cannot be removed"


async def test_pruning_leaves_what_is_young(desk: Desk) -> None:
    ledger = desk.with_retention(1)
    ledger.record(made(1, at=(NOW - 90_000) * 1000))
    ledger.record(made(2))
    await ledger.flush()
    await ledger._prune()
    assert count(desk.path) == 1
    assert sum(sums[0] for sums in hour_sums(desk.path).values()) == 2
    await ledger.drain()
