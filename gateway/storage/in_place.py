"""Writes a file in place where no other can be renamed onto it: a single file that is a mount point, as in
``docker run -v ./tokens.json:/app/tokens.json``.

The journal is in the file itself, because nothing else of such a mount outlives the container. A write goes in this order: the
new content is appended behind the old one, with a head that has its length and its hash; it is written from the start of the
file; the file is cut to its length. Whatever the moment of a crash, ``content`` finds the old content or the new one. The file
itself is locked meanwhile, because other containers have other folders and so other locks.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_NO_RENAME = frozenset({errno.EBUSY, errno.EXDEV})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP})
"""What file systems without locks answer, some of them network shares."""
_HEAD = b"\0in-place journal "
_POLL_SECONDS = 0.005
LOCK_SECONDS = 2.0
MAX_BYTES = 256 * 1024 * 1024
"""The most that a file may take up while it is written: nobody reads a larger one, and it has both contents then."""


class FileLocked(OSError):
    """Another process keeps a file locked."""


def is_needed(error: OSError) -> bool:
    """Returns whether an error of a rename says that the file cannot be replaced by another."""
    return error.errno in _NO_RENAME


def content(data: bytes) -> bytes:
    """Returns what is valid in the bytes of a file, whose last write may not have come to its end."""
    start = data.find(b"\0")  # no file that is written here contains one
    if start < 0:
        return data
    journal = data[start:]
    if not (_HEAD.startswith(journal[: len(_HEAD)]) or journal.startswith(_HEAD) or not journal.strip(b"\0")):
        return data  # not of a write in place
    head, _, new = journal[1:].partition(b"\0")
    return new if head == _head(new)[1:-1] else data[:start].rstrip(b" ")


def write(path: Path, data: bytes) -> None:
    """Writes a file that exists from its start. Blocking. The caller holds the lock of ``path``.

    Raises OSError; then the old content is still what ``content`` finds. Raises ValueError for data with a NUL.
    """
    if b"\0" in data:
        raise ValueError("data that is written in place must not contain a NUL")
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with locked(descriptor, fcntl.LOCK_EX):
            _finish_last_write(descriptor)
            _write_with_journal(descriptor, data)
    finally:
        os.close(descriptor)


def lock(descriptor: int, operation: int, seconds: float) -> None:
    """Locks an open file, ``LOCK_SH`` or ``LOCK_EX`` as for ``fcntl.flock``. Blocking. Without locks it does nothing.

    Raises FileLocked where another process keeps it locked for longer than ``seconds``, OSError.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FileLocked(errno.EBUSY, "the file is locked by another process for too long") from None
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return
        else:
            return


@contextlib.contextmanager
def locked(descriptor: int, operation: int) -> Iterator[None]:
    """Holds such a lock in a block. Raises FileLocked, OSError."""
    lock(descriptor, operation, LOCK_SECONDS)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _head(data: bytes) -> bytes:
    return _HEAD + f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode() + b"\0"


def _finish_last_write(descriptor: int) -> None:
    found = read_all(descriptor)
    valid = content(found)
    if valid is found:
        return
    if not found.startswith(valid):
        _write_all(descriptor, valid, 0)
        os.fsync(descriptor)
    os.ftruncate(descriptor, len(valid))
    os.fsync(descriptor)


def _write_with_journal(descriptor: int, data: bytes) -> None:
    old = os.fstat(descriptor).st_size
    journal = b" " * (len(data) - old) + _head(data) + data
    if old + len(journal) > MAX_BYTES:
        raise OSError(errno.EFBIG, "the file is too large to be written in place")
    try:
        _write_all(descriptor, journal, old)
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, old)
        raise
    _write_all(descriptor, data, 0)
    os.fsync(descriptor)
    os.ftruncate(descriptor, len(data))
    os.fsync(descriptor)


def read_all(descriptor: int) -> bytes:
    """Returns all bytes of an open file. Raises OSError."""
    parts, at = [], 0
    while part := os.pread(descriptor, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _write_all(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
