"""The audit log on disk: appended under a lock, and synced before anybody is told that a change was made."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gateway.audit import hash_chain as chain
from gateway.audit.hash_chain import START, AuditEvent, ChainHead
from gateway.core.clock import to_iso
from gateway.core.threads import Threads, await_uncancelled
from gateway.storage import files
from gateway.storage.disk_reserve import DiskReserve, is_out_of_space

AUDIT_FILE = "audit.jsonl"
"""The file's name in the folder for what the gateway itself writes."""

LOCK_SECONDS = 10.0
BLOCK_BYTES = 64 * 1024
RESERVE_BYTES = 1024 * 1024
"""Space for the lines of some two thousand revocations."""

ENDINGS = frozenset({"token.revoke", "token.delete", "token.end_secret"})
"""What ends access. It may use the last space of the disk, which nothing else may."""


class AuditLogError(OSError):
    """The audit log cannot be continued. A change that cannot be logged is not made."""


class AuditLog:
    """One file; any number of processes and event loops may append to it."""

    def __init__(self, path: Path, clock: Callable[[], float], lock_seconds: float = LOCK_SECONDS) -> None:
        """``clock`` in seconds since the epoch. ``lock_seconds`` is how long an append waits for other processes."""
        self.path = path
        self._clock = clock
        self._lock_seconds = lock_seconds
        self._threads = Threads("audit")
        self.reserve = DiskReserve(path, RESERVE_BYTES)
        """Space on the disk for the lines of revocations."""

    async def append(self, events: Sequence[AuditEvent]) -> None:
        """Appends all events or none; they are durable when it returns.

        A write that has begun goes on to its end when the caller is cancelled. Raises OSError; LockTimeout where another process
        holds the lock; AuditLogError where the end of the file is not an audit log.
        """
        await self._threads.run(files.make_folder, self.path.parent)
        async with files.locked_async(self.path, self._lock_seconds, self._threads):
            writing = asyncio.ensure_future(self._append(events))
            await await_uncancelled(writing, asyncio.Future.result)

    def lines(self) -> Iterator[bytes]:
        """Yields each line with its end. Blocking. Raises OSError; FileNotFoundError where nothing was logged yet."""
        with self.path.open("rb") as file:
            yield from file

    async def _append(self, events: Sequence[AuditEvent]) -> None:
        try:
            await self._write(events)
        except OSError as error:
            is_urgent = all(event.action in ENDINGS for event in events)
            if not is_urgent or not is_out_of_space(error) or not await self._threads.run(self.reserve.release):
                raise
            await self._write(events)

    async def _write(self, events: Sequence[AuditEvent]) -> None:
        # Unbuffered, so that what is written is in the file and not in a buffer that is written once more when it is closed.
        async with files.open_async(self._threads, self.path, "r+b", _open_for_appending, buffering=0) as file:
            size, head = await self._find_end(file)
            data = await self._threads.run(self._encode, events, head)
            try:
                await _write_at(file, size, data)
                await self._threads.run(os.fsync, file.fileno())
                if size == 0:
                    await self._threads.run(files.sync_folder, self.path.parent)
            except BaseException:
                # Half a line would break the chain, and a whole line would tell of a change that is not made.
                await file.truncate(size)
                raise

    def _encode(self, events: Sequence[AuditEvent], head: ChainHead) -> bytes:
        time = to_iso(int(self._clock()))
        data = bytearray()
        for event in events:
            line, head = chain.encode(event, time, head)
            data += line
        return bytes(data)

    async def _find_end(self, file: Any) -> tuple[int, ChainHead]:
        """Returns the size up to the last line end, and the end of the chain there.

        Bytes after the last line end are removed. They are from a writer that was killed before it could sync them, so nobody
        was told of a change that they describe. Raises AuditLogError, OSError.
        """
        size = await file.seek(0, os.SEEK_END)
        tail = await _read_tail(file, size)
        end = tail.rfind(b"\n") + 1
        if end != len(tail):
            size = await file.truncate(size - len(tail) + end)
        if size == 0:
            return 0, START
        try:
            return size, chain.head_after(tail[: end - 1].rpartition(b"\n")[2])
        except ValueError as error:
            raise AuditLogError(f"{self.path}: its last line {error}; move the file away to begin a new one") from None


def _open_for_appending(name: str, _flags: int) -> int:
    return files.make_file(Path(name), os.O_RDWR | os.O_NONBLOCK)


async def _read_tail(file: Any, size: int) -> bytes:
    """Returns the end of the file from a place before its last complete line, or all of the file."""
    tail = b""
    while len(tail) < size and tail.count(b"\n") < 2:
        start = max(0, size - len(tail) - BLOCK_BYTES)
        await file.seek(start)
        tail = await file.read(size - len(tail) - start) + tail
    return tail


async def _write_at(file: Any, offset: int, data: bytes) -> None:
    """Writes all data. An unbuffered write may be short, as one that fills the disk."""
    await file.seek(offset)
    while data:
        data = data[await file.write(data) :]
