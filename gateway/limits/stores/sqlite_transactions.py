"""Transactions on the file of counters: at once where nobody else holds it, else in a thread, so that nobody waits on the
event loop.

Whose turn it is, a lock on a file beside it says. SQLite would say so, too, but while others commit again and again it takes
naps that no time-out governs; and the first write after a checkpoint syncs the disk. So a checkpoint and that write are one turn
of the thread. A process that dies gives its turn back.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.core.tasks import await_uncancelled
from gateway.limits.stores import sqlite_file
from gateway.storage import files, sqlite

T = TypeVar("T")

LONGEST_WAIT_SECONDS = 5.0
TRANSACTIONS_BETWEEN_CHECKPOINTS = 1000
_NAP_SECONDS = 0.0003


class DatabaseBusy(Exception):
    """Another process, or the thread, is in the middle of a transaction."""


class SqliteTransactions:
    """Two connections: a transaction on the loop must not get into one of the thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._here: sqlite3.Connection | None = None
        self._there: sqlite3.Connection | None = None
        self._here_inode = self._there_inode = 0
        self._newest_inode = 0
        """Of the file that the path leads to: the thread looks, and the loop minds it."""
        self._turn_here = _FileLock(path)
        self._turn_there = _FileLock(path)
        self._since_checkpoint = 0
        self._thread = ThreadPoolExecutor(1, "counters")

    def reader(self) -> sqlite3.Connection:
        """For reads on the event loop, which never wait. Raises OSError, sqlite3.Error."""
        if self._here is not None and self._here_inode != self._newest_inode:
            self._here.close()
            self._here = None
        if self._here is None:
            self._here = sqlite_file.connect(self._path, busy_seconds=0.0)
            # A checkpoint syncs the disk, which may take long: the thread makes them.
            self._here.execute("PRAGMA wal_autocheckpoint = 0")
            self._here_inode = self._newest_inode = self._path.stat().st_ino
        return self._here

    def now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """On the event loop. Raises DatabaseBusy, OSError, sqlite3.Error; then nothing was done."""
        with self._turn_here.taken():
            self._since_checkpoint += 1
            return _transaction(self.reader(), work)

    async def soon(self, work: Callable[[sqlite3.Connection], T], undo: "Callable[[Future[T]], None]") -> T:
        """In the thread. ``undo`` is told, on the loop, of work that was done although its caller was cancelled.

        Raises OSError, sqlite3.Error.
        """
        future = self._thread.submit(self._in_thread, work, time.monotonic() + LONGEST_WAIT_SECONDS)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel():
                loop = asyncio.get_running_loop()
                future.add_done_callback(lambda done: loop.call_soon_threadsafe(undo, done))
            raise

    async def finish(self, work: Callable[[sqlite3.Connection], object]) -> BaseException | None:
        """In the thread, to its end: cancelled, it waits on, because the thread does not stop either. Answers the error."""
        return await self._to_its_end(lambda: self._in_thread(work, time.monotonic() + LONGEST_WAIT_SECONDS))

    async def finish_and_checkpoint(self, work: Callable[[sqlite3.Connection], object]) -> BaseException | None:
        """The same for work that writes; where it is time, it also keeps the write-ahead log short."""
        if self._since_checkpoint < TRANSACTIONS_BETWEEN_CHECKPOINTS:
            return await self.finish(work)
        self._since_checkpoint = 0
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        return await self._to_its_end(lambda: self._in_thread(work, deadline, is_checkpoint_due=True))

    def close(self) -> None:
        self._thread.shutdown()
        for connection in (self._here, self._there):
            if connection is not None:
                connection.close()
        self._turn_here.close()
        self._turn_there.close()

    async def _to_its_end(self, work: Callable[[], object]) -> BaseException | None:
        future = asyncio.wrap_future(self._thread.submit(work))
        return await await_uncancelled(future, lambda done: done.exception())

    def _in_thread(
        self, work: Callable[[sqlite3.Connection], T], deadline: float, is_checkpoint_due: bool = False
    ) -> T:
        """``deadline`` is of the request, which may have waited for others in the thread's queue."""
        while True:
            try:
                with self._turn_there.taken():
                    if self._there is not None and sqlite.is_moved(self._path, self._there_inode):
                        self._there.close()
                        self._there = None
                    if self._there is None:
                        self._there = sqlite_file.connect(self._path, busy_seconds=0.0)
                        self._there_inode = self._newest_inode = self._path.stat().st_ino
                    if is_checkpoint_due:
                        self._there.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    return _transaction(self._there, work)
            except DatabaseBusy:
                if time.monotonic() > deadline:
                    raise OSError(f"{self._path} is held by another process for too long") from None
            time.sleep(_NAP_SECONDS)


class _FileLock:
    """A lock of whoever has this file open: two of one process are strangers to each other."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.turn")
        self._descriptor: int | None = None

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Raises DatabaseBusy at once where somebody else has it, or has the database itself; OSError."""
        if self._descriptor is None:
            files.make_folder(self._path.parent)
            self._descriptor = files.make_file(self._path, os.O_RDWR)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseBusy from None
        try:
            yield
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            raise DatabaseBusy from None  # somebody looks into the file by hand
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return found


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
