"""Transactions on the file of counters: at once where nobody else holds it, else in a thread, so that nobody waits on the
event loop."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.limits import counters_file

T = TypeVar("T")

LONGEST_WAIT_SECONDS = 5.0
_NAP_SECONDS = 0.0003
"""Short: SQLite's own naps grow to a tenth of a second while others take the file again and again."""


class HeldByOthers(Exception):
    """Another process, or the thread, is in the middle of a transaction."""


class Transactions:
    """Two connections: a transaction on the loop must not get into one of the thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._here: sqlite3.Connection | None = None
        self._there: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "counters")

    def reader(self) -> sqlite3.Connection:
        """For reads on the event loop, which never wait. Raises OSError, sqlite3.Error."""
        if self._here is None:
            self._here = counters_file.connect(self._path, busy_seconds=0.0)
            # A checkpoint syncs the disk, which may take long: the thread makes them.
            self._here.execute("PRAGMA wal_autocheckpoint = 0")
        return self._here

    def now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """On the event loop. Raises HeldByOthers, OSError, sqlite3.Error; then nothing was done."""
        try:
            return _transaction(self.reader(), work)
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            raise HeldByOthers from None

    async def soon(self, work: Callable[[sqlite3.Connection], T], undo: "Callable[[Future[T]], None]") -> T:
        """In the thread. ``undo`` is told, on the loop, of work that was done although its caller was cancelled.

        Raises OSError, sqlite3.Error.
        """
        future = self._thread.submit(self._in_thread, work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel():
                loop = asyncio.get_running_loop()
                future.add_done_callback(lambda done: loop.call_soon_threadsafe(undo, done))
            raise

    async def finish(self, work: Callable[[sqlite3.Connection], object]) -> BaseException | None:
        """In the thread, to its end: cancelled, it waits on, because the thread does not stop either. Answers the error."""
        return await self._to_its_end(lambda: self._in_thread(work))

    async def checkpoint(self) -> BaseException | None:
        """Keep the write-ahead log short, without being in anybody's way."""
        return await self._to_its_end(
            lambda: self._there and self._there.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        )

    def close(self) -> None:
        self._thread.shutdown()
        for connection in (self._here, self._there):
            if connection is not None:
                connection.close()

    async def _to_its_end(self, work: Callable[[], object]) -> BaseException | None:
        future = asyncio.wrap_future(self._thread.submit(work))
        is_cancelled = False
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                is_cancelled = True
        error = future.exception()
        if is_cancelled:
            raise asyncio.CancelledError
        return error

    def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while True:
            try:
                if self._there is None:
                    self._there = counters_file.connect(self._path, busy_seconds=0.0)
                return _transaction(self._there, work)
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_NAP_SECONDS)


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
