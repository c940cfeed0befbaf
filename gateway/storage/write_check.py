"""Tries at the start what must work later: files can be written and replaced where the gateway's files are, and locked."""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.storage import files

LOCK_SECONDS = 5.0
_ASKS_FOR_EFFECTIVE_USER = os.access in os.supports_effective_ids
MOUNTS = Path("/proc/self/mountinfo")
_MOUNT_POINT = 4
"""The field of a line in ``mountinfo`` that has the path."""


def file_problem(path: Path) -> str | None:
    """Writes and replaces a file beside ``path`` and takes its lock. Returns what fails and how to fix it; None if all works.

    Blocking. What it makes is removed, but for the lock, which is there for good.
    """
    real = Path(os.path.realpath(path))
    problem = _attempt(real.parent, lambda: _take_lock(real))
    if problem is None and is_mount_point(real) and not _may(real, os.W_OK):
        return f"{path} is a mount that cannot be written; mount it for writing, or mount its folder"
    return problem


def folder_problem(path: Path) -> str | None:
    """Writes and replaces a file in the folder ``path``, which is made for that if it is missing.

    Returns what fails and how to fix it, also for files in it that belong to somebody else; None if all works. Blocking.
    """
    problem = _attempt(path, lambda: None)
    if problem is not None or not _exists(path):
        return problem
    try:
        foreign = sorted(
            entry.path for entry in os.scandir(path) if entry.is_file() and not _may(entry.path, os.R_OK | os.W_OK)
        )
    except OSError as error:
        return _explain(path, error)
    return f"{foreign[0]} cannot be read and written by user {os.geteuid()}{_fix(path)}" if foreign else None


def is_mount_point(path: Path) -> bool:
    """Returns whether ``path`` itself is mounted, so that no other file can be renamed onto it."""
    try:
        lines = MOUNTS.read_bytes().splitlines()
    except OSError:
        return False  # a system without it: the first write finds out, and goes the other way
    wanted = os.fsencode(path.absolute())
    return any(_unescape(line.split(b" ")[_MOUNT_POINT]) == wanted for line in lines if line.count(b" ") > _MOUNT_POINT)


def access_problem(folder: Path) -> str | None:
    """Returns why nothing can be written in a folder, as far as its permissions tell; None where they allow it.

    Of a folder that does not exist, the nearest one above it counts.
    """
    while not _exists(folder) and folder != folder.parent:
        folder = folder.parent
    return None if _may(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written by user {os.geteuid()}"


def _attempt(folder: Path, then: Callable[[], None]) -> str | None:
    try:
        with _made(folder):
            _write_and_replace(folder)
            then()
    except OSError as error:
        return _explain(folder, error)
    return None


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes what is missing of a folder, and removes that again: a check leaves no folder behind."""
    missing = [one for one in (folder, *folder.parents) if not _exists(one)]
    try:
        files.make_folder(folder)
        yield
    finally:
        for one in missing:
            with contextlib.suppress(OSError):  # not made, or no longer empty
                one.rmdir()


def _write_and_replace(folder: Path) -> None:
    name = secrets.token_hex(8)
    first, second = folder / f".{name}.check.tmp", folder / f".{name}.check"
    try:
        for path in (first, second):
            descriptor = files.make_file(path, os.O_WRONLY | os.O_EXCL)
            try:
                os.write(descriptor, b"written to see whether files can be written here\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        first.replace(second)
        files.sync_folder(folder)
    finally:
        for path in (first, second):
            with contextlib.suppress(OSError):
                path.unlink()


def _take_lock(path: Path) -> None:
    with files.locked(path, LOCK_SECONDS):
        pass


def _exists(path: Path) -> bool:
    """Returns whether there is something at the path, as far as this user may know."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _may(path: str | Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=_ASKS_FOR_EFFECTIVE_USER)


def _explain(folder: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{folder} cannot be written by user {os.geteuid()}: {reason}{_fix(folder)}"
    return f"{folder} cannot be written: {reason}; mount it for writing, or name another folder"


def _fix(folder: Path) -> str:
    return f"; run `chown -R {os.geteuid()} {folder}`, or name another folder"


def _unescape(field: bytes) -> bytes:
    """Returns a path of ``mountinfo``, where blanks and backslashes are written as octal numbers."""
    first, *others = field.split(b"\\")
    return first + b"".join(bytes([int(other[:3], 8)]) + other[3:] for other in others)
