"""Tells whether the process that wrote something still runs: it keeps a file locked as long as it does."""

import contextlib
import fcntl
import os
import random
from pathlib import Path

from gateway.storage import files


class ProcessLock:
    """Names this process by a random number, and locks a file with that number. The kernel unlocks it when the process ends.

    An id of a process would not do: in a container every gateway may have the same one.
    """

    def __init__(self, beside: Path) -> None:
        """The files are made beside this one, and have its name with a number."""
        self.number = random.getrandbits(62)
        self._beside = beside
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Makes and locks the file, unless that is done. Raises OSError."""
        if self._descriptor is not None:
            return
        descriptor = files.make_file(self._path(self.number), os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def is_running(self, number: int) -> bool:
        """Returns whether the process with this number still runs. The file of one that has ended is removed. Raises OSError."""
        path = self._path(number)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            path.unlink(missing_ok=True)
            return False
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Unlocks the file and removes it, so that this process counts as ended. It may be acquired again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
            with contextlib.suppress(OSError):  # a file that nobody has locked says the same
                self._path(self.number).unlink()

    def _path(self, number: int) -> Path:
        return self._beside.with_name(f"{self._beside.name}.process-{number}")
