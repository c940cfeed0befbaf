"""The audit log on disk: appended under a lock, synced before anybody is told that a change was made. Blocking."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway.audit import hash_chain as chain
from gateway.audit.hash_chain import START, AuditEvent, ChainHead
from gateway.core.clock import to_iso
from gateway.storage import files

AUDIT_FILE = "audit.jsonl"
"""Its name in the folder for what the gateway itself writes."""

LOCK_SECONDS = 10.0
_BLOCK = 64 * 1024


class AuditLogError(OSError):
    """The audit log cannot be continued. A change that cannot be logged is not made."""


class AuditLog:
    """One file; any number of processes may append to it."""

    def __init__(self, path: Path, clock: Callable[[], float], lock_seconds: float = LOCK_SECONDS) -> None:
        self.path = path
        self._clock = clock
        self._lock_seconds = lock_seconds

    async def append(self, entries: Sequence[AuditEvent]) -> None:
        """Write all of them or none. Raises OSError; AuditLogError where the end of the file is no audit log."""
        await asyncio.to_thread(self._append_locked, entries)

    def _append_locked(self, entries: Sequence[AuditEvent]) -> None:
        files.make_folder(self.path.parent)
        with files.locked(self.path, self._lock_seconds):
            descriptor = files.make_file(self.path, os.O_RDWR | os.O_NONBLOCK)
            try:
                self._append(descriptor, entries)
            finally:
                os.close(descriptor)

    def lines(self) -> Iterator[bytes]:
        """Each line with its end, as it stands there. Raises OSError; FileNotFoundError where nothing was logged yet."""
        with self.path.open("rb") as file:
            yield from file

    def _append(self, descriptor: int, entries: Sequence[AuditEvent]) -> None:
        size = _whole_size(descriptor)
        end = self._end(descriptor, size)
        time = to_iso(int(self._clock())) or ""
        data = bytearray()
        for entry in entries:
            line, end = chain.encode(entry, time, end)
            data += line
        try:
            _write_at(descriptor, size, data)
            os.fsync(descriptor)
            if size == 0:
                files.sync_folder(self.path.parent)
        except OSError:
            os.ftruncate(descriptor, size)  # half a line would break the chain, and a whole one would tell of nothing
            raise

    def _end(self, descriptor: int, size: int) -> ChainHead:
        if size == 0:
            return START
        try:
            return chain.head_after(_last_line(descriptor, size))
        except ValueError as error:
            raise AuditLogError(f"{self.path}: its last line {error}; move the file away to begin a new one") from None


def _whole_size(descriptor: int) -> int:
    """Up to the last line end. What stands behind it was never synced, so nobody was told of it: a writer died there."""
    size = os.fstat(descriptor).st_size
    last = _last_line_end(descriptor, size)
    if last != size:
        os.ftruncate(descriptor, last)
    return last


def _last_line_end(descriptor: int, before: int) -> int:
    """The place behind the last line end in front of ``before``; 0 if there is none."""
    while before > 0:
        start = max(0, before - _BLOCK)
        found = os.pread(descriptor, before - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        before = start
    return 0


def _last_line(descriptor: int, size: int) -> bytes:
    start = _last_line_end(descriptor, size - 1)
    return os.pread(descriptor, size - start, start)


def _write_at(descriptor: int, place: int, data: bytearray) -> None:
    while data:
        written = os.pwrite(descriptor, data, place)
        place += written
        del data[:written]
