"""Keeps disk space back for changes that must succeed on a full disk, such as the revocation of whoever filled it.

The reserve is a file without content whose blocks are allocated. It is removed when such a change finds the disk full, and made
again when there is space.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from gateway.core.threads import Threads
from gateway.storage import files, write_check

log = logging.getLogger(__name__)

_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_LARGEST_PART = 8
"""A reserve takes at most an eighth of a file system: of a small one, most must be left for what it is there for."""

LEAST_FREE_BYTES = 64 * 1024
CHECK_SECONDS = 2.0


def is_out_of_space(error: OSError) -> bool:
    """Returns whether an error says that the disk, or what this user may have of it, is full."""
    return error.errno in _OUT_OF_SPACE


class DiskReserve:
    """The reserve of one file, beside it. Blocking; any number of processes may share it."""

    def __init__(self, path: Path, size: int) -> None:
        """``path`` is that of the file for which space is kept, ``size`` how many bytes."""
        self.file = path
        self.path = path.parent / f"{path.name}.reserve"
        self.size = size

    def keep(self) -> bool:
        """Allocates what is missing of the reserve, and returns whether it is whole. Raises nothing of the disk.

        A folder that does not exist needs none yet.
        """
        try:
            part = os.statvfs(self.path.parent)
            size = min(self.size, part.f_blocks * part.f_frsize // _LARGEST_PART)
            if self._allocated() < size:
                self._allocate(size)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def problem(self) -> str | None:
        """Makes the reserve whole, and returns what keeps anything from being written there. Raises nothing of the disk."""
        is_kept = self.keep()
        try:
            part = os.statvfs(self.path.parent)
        except FileNotFoundError:
            return write_check.access_problem(self.path.parent)
        except OSError as error:
            return f"the disk of {self.path.parent} cannot be read: {error.strerror}"
        if part.f_flag & os.ST_RDONLY:
            return f"the disk of {self.path.parent} is read-only"
        if (problem := write_check.access_problem(self.path.parent)) is not None:
            return problem
        is_full = not is_kept or part.f_bavail * part.f_frsize < LEAST_FREE_BYTES
        return f"the disk of {self.path.parent} is full" if is_full else None

    def file_bytes(self) -> int:
        """Returns the size of the file for which space is kept; 0 where it cannot be read."""
        try:
            return self.file.stat().st_size
        except OSError:
            return 0

    def release(self) -> bool:
        """Gives the space up, and returns whether there was any. Raises OSError."""
        was_kept = self._allocated() > 0
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        return was_kept

    def _allocated(self) -> int:
        try:
            return self.path.lstat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def _allocate(self, size: int) -> None:
        descriptor = files.make_file(self.path, os.O_WRONLY)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            self.path.unlink()  # a part of it would take the last space from everything else
            raise
        finally:
            os.close(descriptor)


class DiskMonitor:
    """Looks after reserves, and knows what keeps the gateway from writing."""

    def __init__(self, reserves: Sequence[DiskReserve]) -> None:
        self._reserves = reserves
        self._threads = Threads("disk")
        self.problem: str | None = None
        """Why the disk cannot be written; None while it can be."""
        self.file_bytes: dict[Path, int] = {}
        """The sizes of the files for which space is kept."""

    async def run(self) -> None:
        """Checks until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_SECONDS)

    async def check(self) -> None:
        """Makes the reserves whole where there is space, and logs when the disk becomes full and when it is so no more."""
        found = await self._threads.run(lambda: [reserve.problem() for reserve in self._reserves])
        self.file_bytes = await self._threads.run(lambda: {one.file: one.file_bytes() for one in self._reserves})
        problem = next((one for one in found if one is not None), None)
        if problem is not None and self.problem is None:
            log.error("the disk cannot be written; tokens can still be revoked", extra={"problem": problem})
        elif problem is None and self.problem is not None:
            log.info("the disk can be written again")
        self.problem = problem
