"""Keeps a second gateway away from a data folder: each would count limits on its own, and overwrite what the other counted."""

import contextlib
import fcntl
import os
from pathlib import Path

from gateway.storage import files, in_place

LOCK_FILE = "gateway.lock"
"""The file's name in the folder. It stays there; the kernel releases its lock when the last process that has it open ends."""
WAIT_SECONDS = 3.0
"""How long a start waits for the end of the process before it, which may just be stopping."""


class FolderInUse(OSError):
    """Another gateway uses the folder."""


class FolderLock:
    """Holds the lock of a folder, for this process and for those that are forked from it, until all of them have ended."""

    def __init__(self, folder: Path, *, is_shared: bool, seconds: float = WAIT_SECONDS) -> None:
        """Takes the lock, and makes the folder where it is missing. Blocking. ``is_shared`` is for gateways that share all that
        they count through files: any number of them may hold the lock together.

        Raises FolderInUse after ``seconds``, OSError where the lock cannot be made.
        """
        files.make_folder(folder)
        path = folder / LOCK_FILE
        self._descriptor = files.make_file(path, os.O_RDWR)
        try:
            in_place.lock(self._descriptor, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX, seconds)
        except in_place.FileLocked:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            by = f" (process {holder})" if holder else ""
            raise FolderInUse(f"{folder} is in use by another gateway{by}") from None
        except OSError:
            os.close(self._descriptor)
            raise
        self._note_process()

    def close(self) -> None:
        """Gives the lock up, where no forked process has it any more."""
        os.close(self._descriptor)

    def _note_process(self) -> None:
        """Writes the id of this process into the file, for the message to others. A full disk is no reason not to start."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
