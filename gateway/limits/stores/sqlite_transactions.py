"""Runs transactions on the file of counters: on the event loop where that needs no waiting, else in a thread.

A lock on a file beside the database decides which process writes. SQLite has locks of its own, but they are not enough:

* while other processes commit again and again, SQLite sleeps for times that no time-out limits;
* the first write after a checkpoint syncs the disk, which may block for long. So a checkpoint and the write after it are
  one step of the thread.

The kernel releases the lock of a process that dies.
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

from gateway.core.threads import await_uncancelled
from gateway.limits.stores import sqlite_file
from gateway.storage import files
from gateway.storage.sqlite import ReopeningConnection

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""What is done within one transaction."""

MAX_WAIT_SECONDS = 5.0
TRANSACTIONS_PER_CHECKPOINT = 1000
_RETRY_SECONDS = 0.0003


class DatabaseBusy(Exception):
    """Another process, or the thread of this one, is in the middle of a transaction."""


class SqliteTransactions:
    """Runs one transaction at a time over all processes.

    ``max_wait`` is in seconds and limits the waiting in the thread. ``checkpoint_every`` is a number of transactions.

    The event loop and the thread have a connection each, so that the transaction of one never gets into that of the other.
    """

    def __init__(
        self,
        path: Path,
        max_wait: float = MAX_WAIT_SECONDS,
        checkpoint_every: int = TRANSACTIONS_PER_CHECKPOINT,
    ) -> None:
        self._path = path
        self._max_wait = max_wait
        self._checkpoint_every = checkpoint_every
        self._loop_conn = ReopeningConnection(path, lambda: _connect_for_loop(path))
        self._thread_conn = ReopeningConnection(path, lambda: sqlite_file.connect(path, busy_seconds=0.0))
        self._newest_inode = 0
        """The file that the path led to when the thread looked last. The loop compares it, and makes no system call."""
        self._loop_lock = _FileLock(path)
        self._thread_lock = _FileLock(path)
        self._since_checkpoint = 0
        self._thread = ThreadPoolExecutor(1, "counters")

    def loop_connection(self) -> sqlite3.Connection:
        """Returns the connection for reading on the event loop; reads never wait. Raises OSError, sqlite3.Error."""
        inode = self._loop_conn.inode
        connection = self._loop_conn.get_for_inode(self._newest_inode)
        if self._loop_conn.inode != inode:
            self._newest_inode = self._loop_conn.inode
        return connection

    def run_on_loop(self, work: Work[T]) -> T:
        """Runs a transaction on the event loop, without waiting. Raises DatabaseBusy, OSError, sqlite3.Error.

        After an error nothing of the work is done.
        """
        with self._loop_lock.acquire():
            self._since_checkpoint += 1
            return _run(self.loop_connection(), work)

    async def run_in_thread(self, work: Work[T], undo: "Callable[[Future[T]], None]") -> T:
        """Runs a transaction in the thread, which waits for the database. Raises OSError, sqlite3.Error.

        When the caller is cancelled and the work has begun already, ``undo`` is called on the loop with its outcome.
        """
        future = self._thread.submit(self._run_when_free, work, time.monotonic() + self._max_wait)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel():
                loop = asyncio.get_running_loop()
                future.add_done_callback(lambda done: loop.call_soon_threadsafe(undo, done))
            raise

    async def run_to_completion(self, work: Work[object]) -> BaseException | None:
        """Runs a transaction in the thread and returns its error. When cancelled, it first waits for the end of the work."""
        return await self._complete(work, is_checkpoint_due=False)

    async def run_and_checkpoint(self, work: Work[object]) -> BaseException | None:
        """Does the same for work that writes, and where many transactions were made, empties the write-ahead log before it."""
        is_checkpoint_due = self._since_checkpoint >= self._checkpoint_every
        if is_checkpoint_due:
            self._since_checkpoint = 0
        return await self._complete(work, is_checkpoint_due)

    def close(self) -> None:
        """Waits for the thread and closes both connections."""
        self._thread.shutdown()
        self._loop_conn.close()
        self._thread_conn.close()
        self._loop_lock.close()
        self._thread_lock.close()

    async def _complete(self, work: Work[object], is_checkpoint_due: bool) -> BaseException | None:
        deadline = time.monotonic() + self._max_wait
        future = asyncio.wrap_future(self._thread.submit(self._run_when_free, work, deadline, is_checkpoint_due))
        return await await_uncancelled(future, lambda done: done.exception())

    def _run_when_free(self, work: Work[T], deadline: float, is_checkpoint_due: bool = False) -> T:
        """Runs in the thread. The deadline was set by the caller, because the work may have waited in the thread's queue."""
        while True:
            try:
                with self._thread_lock.acquire():
                    connection = self._thread_connection()
                    if is_checkpoint_due:
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    return _run(connection, work)
            except DatabaseBusy:
                if time.monotonic() > deadline:
                    raise OSError(f"{self._path} is locked by another process for too long") from None
            time.sleep(_RETRY_SECONDS)

    def _thread_connection(self) -> sqlite3.Connection:
        connection = self._thread_conn.get()
        self._newest_inode = self._thread_conn.inode
        return connection


def _connect_for_loop(path: Path) -> sqlite3.Connection:
    connection = sqlite_file.connect(path, busy_seconds=0.0)
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # a checkpoint syncs the disk: it is left to the thread
    return connection


class _FileLock:
    """Locks a file beside the database. Two locks of one process exclude each other, too: each opens the file itself."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.turn")
        self._descriptor: int | None = None

    @contextlib.contextmanager
    def acquire(self) -> Iterator[None]:
        """Locks for the duration of a ``with`` block.

        Raises DatabaseBusy at once where the lock is taken, or where the block finds the database itself locked; OSError.
        """
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
            raise DatabaseBusy from None  # a program that knows nothing of our lock has opened the file
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _run(connection: sqlite3.Connection, work: Work[T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
