"""Writing behind: nothing is lost to a store that fails or to a caller that is cancelled, and nothing is written twice."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiofiles
import pytest

from gateway.core.threads import Threads
from gateway.storage.write_behind import PendingList, WriteBehind, in_thread


class FakeStore:
    """A store that fails when told to, and whose write waits until it is allowed to go on."""

    def __init__(self) -> None:
        self.written: list[list[int]] = []
        self.error: Exception | None = None
        self.running = 0
        self.most_at_once = 0
        self.has_begun = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def write(self, batch: Sequence[int]) -> None:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self.has_begun.set()
        await asyncio.sleep(0)  # lets a write run that does not wait for its turn
        await self.may_go_on.wait()
        self.running -= 1
        if self.error is not None:
            raise self.error
        self.written.append(list(batch))


class Numbers:
    """Numbers that wait, their store, and the count of its failures."""

    def __init__(self, write: Callable[[list[int]], Awaitable[object]] | None = None) -> None:
        self.store = FakeStore()
        self.pending: PendingList[int] = PendingList(2)
        self.failures = 0
        self.writer = WriteBehind("numbers", self.pending, write or self.store.write, self.count_failure)

    def count_failure(self) -> None:
        self.failures += 1

    def add(self, *numbers: int) -> None:
        self.pending.items += numbers


@pytest.fixture
async def numbers() -> Numbers:
    return Numbers()


async def test_what_waits_is_written_in_batches_and_in_order(numbers: Numbers) -> None:
    numbers.add(1, 2, 3, 4, 5)
    assert numbers.writer.waiting == 5
    assert await numbers.writer.flush()
    assert numbers.store.written == [[1, 2], [3, 4], [5]]
    assert (numbers.writer.waiting, numbers.failures) == (0, 0)


async def test_one_batch_can_be_written_alone(numbers: Numbers) -> None:
    numbers.add(1, 2, 3)
    assert await numbers.writer.flush_batch()
    assert (numbers.store.written, numbers.writer.waiting) == ([[1, 2]], 1)
    numbers.store.error = OSError("the disk is full")
    assert not await numbers.writer.flush_batch()
    assert (numbers.pending.items, numbers.failures) == ([3], 1)


async def test_nothing_is_written_where_nothing_waits(numbers: Numbers) -> None:
    assert await numbers.writer.flush()
    assert await numbers.writer.flush_batch()
    assert not numbers.store.has_begun.is_set()


async def test_a_batch_that_fails_waits_again_before_what_is_newer(numbers: Numbers) -> None:
    numbers.add(1, 2, 3)
    numbers.store.error = OSError("the disk is full")
    assert not await numbers.writer.flush()
    assert (numbers.pending.items, numbers.writer.waiting, numbers.failures) == ([1, 2, 3], 3, 1)
    assert not numbers.writer.is_up
    numbers.add(4)
    numbers.store.error = None
    assert await numbers.writer.flush()
    assert numbers.store.written == [[1, 2], [3, 4]]
    assert numbers.writer.is_up


async def test_a_failure_that_lasts_is_logged_once_and_its_end_too(
    numbers: Numbers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for error in (OSError("the disk is full"), ValueError("no number"), None, None, OSError("full again")):
        numbers.store.error = error
        numbers.add(1)
        await numbers.writer.flush()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "numbers cannot be written, they wait in memory"),
        ("INFO", "numbers can be written again"),
        ("ERROR", "numbers cannot be written, they wait in memory"),
    ]
    assert [vars(record).get("problem") for record in caplog.records] == ["the disk is full", None, "full again"]
    assert numbers.failures == 3


async def test_a_failure_outside_a_write_is_logged_in_the_same_way(
    numbers: Numbers, caplog: pytest.LogCaptureFixture
) -> None:
    numbers.writer.mark_down(OSError("cannot be read"))
    numbers.writer.mark_down(OSError("cannot be read"))
    assert (numbers.writer.is_up, len(caplog.records)) == (False, 1)
    numbers.writer.mark_up()
    assert numbers.writer.is_up


@pytest.mark.parametrize("error", [None, OSError("the disk is full")])
async def test_a_cancelled_flush_ends_its_write(numbers: Numbers, error: Exception | None) -> None:
    numbers.store.error = error
    numbers.store.may_go_on.clear()
    numbers.add(1, 2, 3)
    flush = asyncio.create_task(numbers.writer.flush())
    await numbers.store.has_begun.wait()
    assert (len(numbers.pending), numbers.writer.waiting) == (1, 3)
    flush.cancel()
    numbers.store.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flush
    assert numbers.store.written == ([] if error else [[1, 2]])
    numbers.store.error = None
    await numbers.writer.flush()
    assert numbers.store.written == [[1, 2], [3]]


async def test_a_write_that_is_cancelled_itself_is_made_again() -> None:
    writes: list[list[int]] = []

    async def write(batch: list[int]) -> None:
        writes.append(batch)
        if len(writes) == 1:
            raise asyncio.CancelledError

    numbers = Numbers(write)
    numbers.add(1)
    assert not await numbers.writer.flush()
    assert await numbers.writer.flush()
    assert writes == [[1], [1]]


async def test_flushes_at_the_same_time_take_turns(numbers: Numbers) -> None:
    numbers.add(*range(9))
    writer = numbers.writer
    await asyncio.gather(writer.flush_batch(), writer.flush(), writer.flush_batch(), writer.flush(), writer.drain())
    assert numbers.store.written == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    assert numbers.store.most_at_once == 1


async def test_what_is_lost_at_shutdown_is_logged(numbers: Numbers, caplog: pytest.LogCaptureFixture) -> None:
    numbers.add(1, 2, 3)
    numbers.store.error = OSError("the disk is full")
    await numbers.writer.drain()
    assert caplog.records[-1].getMessage() == "numbers lost at shutdown"
    assert vars(caplog.records[-1])["count"] == 3
    numbers.store.error = None
    caplog.clear()
    await numbers.writer.drain()
    assert not caplog.records


async def test_a_blocking_write_runs_in_a_thread() -> None:
    threads: list[threading.Thread] = []
    numbers = Numbers(in_thread(lambda batch: threads.append(threading.current_thread()), Threads("numbers")))
    numbers.add(1)
    assert await numbers.writer.flush()
    assert threads != [threading.current_thread()]


async def test_a_write_may_use_aiofiles(tmp_path: Path) -> None:
    path = tmp_path / "numbers"

    async def write(batch: list[int]) -> None:
        async with aiofiles.open(path, "ab") as file:
            await file.write(bytes(batch))

    numbers = Numbers(write)
    numbers.add(1, 2, 3)
    assert await numbers.writer.flush()
    assert path.read_bytes() == b"\x01\x02\x03"


async def test_without_a_callback_a_failure_is_kept_all_the_same(numbers: Numbers) -> None:
    writer = WriteBehind("numbers", numbers.pending, numbers.store.write)
    numbers.add(1)
    numbers.store.error = OSError("no")
    assert not await writer.flush()
    assert writer.waiting == 1
