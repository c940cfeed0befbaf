"""Files that are replaced completely or not at all, locks between processes, and reading of files that may be hostile.

A write goes in this order: a temporary file in the same folder, fsync, rename, fsync of the folder. It survives a crash on every
common file system; without the first fsync a rename may leave an empty file.
"""

import asyncio
import contextlib
import fcntl
import glob
import logging
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiofiles
from filelock import FileLock, Timeout

from gateway.core.threads import Threads
from gateway.storage import in_place

if TYPE_CHECKING:
    from filelock import AsyncFileLock

log = logging.getLogger(__name__)

_TEMPORARY_SUFFIX = ".tmp"
_LOCK_POLL_SECONDS = 0.005


class LockTimeout(OSError):
    """Another process holds the lock for too long."""


class Signature(NamedTuple):
    """What distinguishes one state of a file from another without reading it."""

    inode: int
    modified_ns: int
    changed_ns: int
    size: int


def signature(path: Path) -> Signature:
    """Returns the signature of a file. Raises OSError; FileNotFoundError if there is no file."""
    status = path.stat()
    return Signature(status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def make_folder(path: Path) -> None:
    """Creates a folder with mode 0700, and those above it, unless it exists. Raises OSError."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _hand_over(path, path.parent)


def make_file(path: Path, flags: int) -> int:
    """Opens a file, and creates it with mode 0600 if it does not exist. Returns the descriptor. A symbolic link is not followed.

    ``flags`` as for ``os.open``. Raises OSError.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size == 0:
            _hand_over(path, path.parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _hand_over(path: Path, like: Path) -> None:
    """Gives a path to the owner of ``like`` if root runs the process: a gateway that runs as that user has to read it."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Holds the lock of ``path``: a file beside it, because each write replaces the file itself. Blocking.

    Raises LockTimeout after ``timeout`` seconds, OSError where the lock cannot be created.
    """
    # With a long interval, a lock that another process takes again and again is never found free.
    lock = FileLock(f"{path}.lock", timeout=timeout, poll_interval=_LOCK_POLL_SECONDS, mode=0o600)
    try:
        with lock:
            _hand_over(Path(lock.lock_file), path.parent)
            yield
    except Timeout:
        raise LockTimeout(f"{path}.lock is held by another process for more than {timeout:g} s") from None


@contextlib.asynccontextmanager
async def locked_async(path: Path, seconds: float, threads: Threads) -> AsyncIterator[None]:
    """Holds the same lock, from an event loop. It is tried for again and again, each time for a moment in one of ``threads``.

    Callers of one process should take turns: while many of them try, whoever holds the lock waits for a thread, too. Raises
    LockTimeout after ``seconds``, OSError where the lock cannot be created.
    """
    lock = await threads.run(_async_lock, path, seconds, threads)
    try:
        async with lock:
            await threads.run(_hand_over, Path(lock.lock_file), path.parent)
            yield
    except Timeout:
        raise LockTimeout(f"{path}.lock is held by another process for more than {seconds:g} s") from None


def _async_lock(path: Path, seconds: float, threads: Threads) -> "AsyncFileLock":
    from filelock import AsyncFileLock  # loads slowly, and a command that only reads tokens needs no lock

    return AsyncFileLock(
        f"{path}.lock",
        timeout=seconds,
        poll_interval=_LOCK_POLL_SECONDS,
        mode=0o600,
        executor=threads.executor,
    )


@contextlib.asynccontextmanager
async def open_async(
    threads: Threads, path: Path, mode: str, opener: Callable[[str, int], int], buffering: int = -1
) -> AsyncIterator[Any]:
    """Opens a file in binary ``mode`` with ``opener``, and closes it at the end of the block. Raises OSError.

    ``async with aiofiles.open(...)`` would close it in the pool of the event loop, and wait there behind whatever else blocks.
    """
    executor = threads.executor
    file = await aiofiles.open(path, mode, buffering, opener=opener, executor=executor)  # type: ignore[call-overload]
    try:
        yield file
    finally:
        await file.close()


async def read_regular(path: Path, limit: int, threads: Threads) -> bytes:
    """Returns the content of a regular file of at most ``limit`` bytes, which one of ``threads`` reads.

    Raises OSError, also for a device or a pipe: reading one could block for ever.
    """

    def open_regular(name: str, _flags: int) -> int:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{path} is not a regular file")
            if status.st_size > limit:
                raise OSError(f"{path} is larger than {limit} bytes")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    async with open_async(threads, path, "rb", open_regular) as file:
        return await threads.run(_read_locked, file.fileno())


def _read_locked(descriptor: int) -> bytes:
    """Returns the content of an open file, which stays locked until it is closed: it may just be written in place."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        in_place.lock(descriptor, fcntl.LOCK_SH, in_place.LOCK_SECONDS)
    with open(descriptor, "rb", closefd=False) as file:
        data = file.read()
    return in_place.content(data) if b"\0" in data else data


async def replace(path: Path, data: bytes, threads: Threads) -> None:
    """Replaces the content of a file, which then has mode 0600. The caller holds the lock, and is not cancelled meanwhile.

    A file that is a mount point is written in place (``storage/in_place.py``), and keeps its mode.

    Raises OSError; then nothing has changed. Once the file is renamed, the change is made: a folder that cannot be synced is
    logged, because only a power cut could still undo the change.
    """
    folder = path.parent
    temporary = folder / f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}"
    try:
        await _write_new(temporary, data, threads)
        with contextlib.suppress(
            asyncio.CancelledError
        ):  # too late: the file is replaced, and that must not be called a failure
            await threads.run_to_end(_move, temporary, path, data)
    except BaseException:
        with contextlib.suppress(OSError):
            await threads.run(temporary.unlink)
        raise
    try:
        await threads.run(sync_folder, folder)
    except OSError as error:
        log.error("a change is made but may not survive a power cut", extra={"folder": folder, "problem": str(error)})


def sweep(path: Path) -> None:
    """Removes the temporary files of killed writers. The caller holds the lock, so every temporary file is one of those."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{_TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):  # a leftover that cannot be removed is no reason to refuse the write
            leftover.unlink()


async def _write_new(path: Path, data: bytes, threads: Threads) -> None:
    async with open_async(threads, path, "wb", _create) as file:
        await file.write(data)
        await file.flush()
        await threads.run(os.fsync, file.fileno())


def _create(name: str, _flags: int) -> int:
    """Opens a new file with mode 0600, whatever the umask is. Returns the descriptor."""
    # O_EXCL and O_NOFOLLOW: a link planted under the temporary name must not be followed.
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _move(temporary: Path, path: Path, data: bytes) -> None:
    _hand_over(temporary, path if path.exists() else path.parent)
    try:
        temporary.replace(path)
    except OSError as error:
        if not in_place.is_needed(error):
            raise
        in_place.write(path, data)
        temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, so that a new file survives a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
