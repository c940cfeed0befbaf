"""Transactions on the event loop and in the thread: complete or not at all, one at a time over all processes."""

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from gateway.limits.stores.sqlite_transactions import DatabaseBusy, SqliteTransactions
from tests.support.limits import locked_database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / COUNTERS_FILE


@pytest.fixture
def transactions(path: Path) -> Iterator[SqliteTransactions]:
    opened = SqliteTransactions(path)
    yield opened
    opened.close()


def add(number: int) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO workers VALUES (?, 1)", (number,))
        return number

    return work


def workers(path: Path) -> list[int]:
    connection = sqlite_file.connect(path, 1.0)
    try:
        return [number for (number,) in connection.execute("SELECT id FROM workers ORDER BY id")]
    finally:
        connection.close()


def ignore(done: "Future[int]") -> None:
    """For work that needs no undoing."""


def test_a_transaction_on_the_loop(transactions: SqliteTransactions, path: Path) -> None:
    assert transactions.run_on_loop(add(1)) == 1
    assert workers(path) == [1]
    assert transactions.loop_connection().execute("SELECT id FROM workers").fetchall() == [(1,)]


async def test_a_transaction_in_the_thread(transactions: SqliteTransactions, path: Path) -> None:
    assert await transactions.run_in_thread(add(1), ignore) == 1
    assert await transactions.run_to_completion(add(2)) is None
    assert await transactions.run_and_checkpoint(add(3)) is None
    assert workers(path) == [1, 2, 3]


async def test_after_an_error_nothing_is_done(transactions: SqliteTransactions, path: Path) -> None:
    def fail(connection: sqlite3.Connection) -> int:
        add(1)(connection)
        raise LookupError("for a test")

    with pytest.raises(LookupError):
        transactions.run_on_loop(fail)
    with pytest.raises(LookupError):
        await transactions.run_in_thread(fail, ignore)
    assert isinstance(await transactions.run_to_completion(fail), LookupError)
    assert workers(path) == []
    assert transactions.run_on_loop(add(2)) == 2


def test_an_error_that_has_ended_the_transaction_itself(transactions: SqliteTransactions, path: Path) -> None:
    """As SQLite does where the disk is full."""

    def fail(connection: sqlite3.Connection) -> int:
        add(1)(connection)
        connection.execute("ROLLBACK")
        raise LookupError("for a test")

    with pytest.raises(LookupError):
        transactions.run_on_loop(fail)
    assert transactions.run_on_loop(add(2)) == 2
    assert workers(path) == [2]


def test_an_error_of_the_database_is_not_taken_for_a_lock(transactions: SqliteTransactions) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        transactions.run_on_loop(lambda connection: connection.execute("SELECT * FROM missing"))


def test_a_locked_database_is_not_waited_for_on_the_loop(transactions: SqliteTransactions, path: Path) -> None:
    transactions.run_on_loop(add(1))
    with locked_database(path), pytest.raises(DatabaseBusy):
        transactions.run_on_loop(add(2))
    transactions.run_on_loop(add(3))
    assert workers(path) == [1, 3]


async def test_a_transaction_of_another_process_is_waited_for_in_the_thread(
    transactions: SqliteTransactions, path: Path
) -> None:
    """Two of one process exclude each other as those of two processes do."""
    other = SqliteTransactions(path)
    has_begun, may_end = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        add(1)(connection)
        has_begun.set()
        assert may_end.wait(30)
        return 1

    running = asyncio.create_task(other.run_to_completion(slow))
    await asyncio.to_thread(has_begun.wait, 30)
    for busy in (transactions, other):
        with pytest.raises(DatabaseBusy):
            busy.run_on_loop(add(2))
    waiting = asyncio.create_task(transactions.run_in_thread(add(3), ignore))
    await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    assert (await running, await waiting) == (None, 3)
    assert workers(path) == [1, 3]
    other.close()


async def test_a_lock_that_is_never_released_is_an_error(path: Path) -> None:
    transactions = SqliteTransactions(path, max_wait=0.02)
    transactions.run_on_loop(add(1))
    with locked_database(path):
        with pytest.raises(OSError, match="locked by another process for too long"):
            await transactions.run_in_thread(add(2), ignore)
        assert isinstance(await transactions.run_to_completion(add(3)), OSError)
    assert workers(path) == [1]
    transactions.close()


async def test_work_that_is_cancelled_before_it_begins_is_not_done(
    transactions: SqliteTransactions, path: Path
) -> None:
    undone: list[int] = []
    transactions.run_on_loop(add(1))
    with locked_database(path):
        first = asyncio.create_task(transactions.run_to_completion(add(2)))
        second = asyncio.create_task(transactions.run_in_thread(add(3), lambda done: undone.append(done.result())))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
    assert await first is None
    assert await transactions.run_to_completion(add(4)) is None
    assert (second.cancelled(), undone, workers(path)) == (True, [], [1, 2, 4])


async def test_work_that_is_cancelled_after_it_has_begun_is_to_be_undone(
    transactions: SqliteTransactions, path: Path
) -> None:
    undone: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    has_begun, may_end = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        has_begun.set()
        assert may_end.wait(30)
        return add(1)(connection)

    task = asyncio.create_task(transactions.run_in_thread(slow, lambda done: undone.set_result(done.result())))
    await asyncio.to_thread(has_begun.wait, 30)
    task.cancel()
    await asyncio.wait([task])
    may_end.set()
    assert await undone == 1
    assert (task.cancelled(), workers(path)) == (True, [1])


async def test_work_that_has_to_be_completed_is_waited_for_when_cancelled(
    transactions: SqliteTransactions, path: Path
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        has_begun.set()
        assert may_end.wait(30)
        return add(1)(connection)

    task = asyncio.create_task(transactions.run_to_completion(slow))
    await asyncio.to_thread(has_begun.wait, 30)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    await asyncio.wait([task])
    assert (task.cancelled(), workers(path)) == (True, [1])


@pytest.mark.parametrize(("checkpoint_every", "grows"), [(20, False), (10**9, True)])
async def test_the_write_ahead_log_is_emptied_by_the_thread(path: Path, checkpoint_every: int, grows: bool) -> None:
    transactions = SqliteTransactions(path, checkpoint_every=checkpoint_every)
    log = path.with_name(f"{path.name}-wal")
    sizes = []
    number = 0
    for _ in range(5):
        for _ in range(20):
            number += 1
            transactions.run_on_loop(add(number))
        assert await transactions.run_and_checkpoint(add(-number)) is None
        sizes.append(log.stat().st_size)
    assert (sizes[-1] > 2 * sizes[0]) == grows, sizes
    transactions.close()


async def test_a_checkpoint_is_made_only_when_it_is_due(path: Path) -> None:
    transactions = SqliteTransactions(path, checkpoint_every=3)
    numbers = itertools.count()
    log = path.with_name(f"{path.name}-wal")

    async def is_begun_anew(loop_transactions: int) -> bool:
        for _ in range(loop_transactions):
            transactions.run_on_loop(lambda connection: connection.execute("DELETE FROM counters"))
        before = log.read_bytes()[:32]  # the head of the log changes when it is begun anew
        assert await transactions.run_and_checkpoint(add(next(numbers))) is None
        return log.read_bytes()[:32] != before

    assert [await is_begun_anew(count) for count in (2, 1, 2, 3, 0)] == [False, True, False, True, False]
    transactions.close()


@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "replaced"])
async def test_a_file_that_is_moved_is_opened_anew(
    transactions: SqliteTransactions, path: Path, is_deleted: bool, tmp_path: Path
) -> None:
    """By the loop, too, as soon as the thread has seen it."""
    transactions.run_on_loop(add(1))
    await transactions.run_to_completion(add(2))
    path.parent.rename(tmp_path / "away")
    if not is_deleted:
        other = SqliteTransactions(path)
        other.run_on_loop(add(3))
        other.close()
    assert await transactions.run_to_completion(add(4)) is None
    transactions.run_on_loop(add(5))
    assert workers(path) == ([4, 5] if is_deleted else [3, 4, 5])
    assert workers(tmp_path / "away" / path.name) == [1, 2]


async def test_the_thread_goes_on_with_the_file_that_the_loop_has_opened(
    transactions: SqliteTransactions, path: Path
) -> None:
    transactions.run_on_loop(add(1))
    await transactions.run_to_completion(add(2))
    transactions.run_on_loop(add(3))
    await transactions.run_to_completion(add(4))
    assert workers(path) == [1, 2, 3, 4]
