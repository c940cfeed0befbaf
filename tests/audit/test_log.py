"""The log on disk: whole lines or none, one chain whoever writes, and a clear error where it cannot go on."""

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import log as log_module
from gateway.audit.hash_chain import verify
from gateway.audit.log import AuditLog, AuditLogError
from gateway.core.clock import to_iso
from gateway.storage import files
from gateway.storage.files import LockTimeout
from tests.audit.test_hash_chain import entry
from tests.support.tokens import NOW, Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "audit.jsonl"


@pytest.fixture
def log(path: Path) -> AuditLog:
    return AuditLog(path, Clock())


def count(log: AuditLog) -> int:
    """Returns how many lines there are. They must be one valid chain."""
    verdict = verify(log.lines())
    assert verdict.broken is None
    return verdict.end.number


def full_disk(*_arguments: object) -> None:
    raise OSError(28, "No space left on device")


OPEN = files.open_async


class WrappedFiles:
    """Opens files in the place of ``files.open_async``. Every write or read goes through ``call``.

    It gets the real one and its argument.
    """

    def __init__(
        self, call: Callable[[Callable[[Any], Awaitable[Any]], Any], Awaitable[Any]], name: str = "write"
    ) -> None:
        self._call = call
        self._name = name

    @asynccontextmanager
    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        async with OPEN(*arguments, **options) as file:
            real = getattr(file, self._name)
            setattr(file, self._name, lambda argument: self._call(real, argument))
            yield file


async def test_the_first_entry_creates_folder_and_file_for_their_owner_alone(log: AuditLog, path: Path) -> None:
    umask = os.umask(0o000)
    try:
        await log.append([entry(1), entry(2)])
    finally:
        os.umask(umask)
    assert count(log) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_entries_tell_the_time_of_the_clock(log: AuditLog) -> None:
    await log.append([entry(1), entry(2)])
    assert [json.loads(line)["time"] for line in log.lines()] == [to_iso(NOW)] * 2


async def test_a_line_is_in_the_file_when_it_is_synced(
    log: AuditLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in a buffer only is lost with the power, and was reported as durable."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _descriptor: synced.append(path.read_bytes()))
    await log.append([entry(1)])
    assert path.read_bytes() in synced


async def test_many_tasks_make_one_chain(path: Path) -> None:
    logs = [AuditLog(path, Clock()) for _ in range(4)]
    await asyncio.gather(*(logs[number % 4].append([entry(number)] * (1 + number % 3)) for number in range(60)))
    assert count(logs[0]) == 20 * (1 + 2 + 3)


def test_many_event_loops_make_one_chain(path: Path) -> None:
    logs = [AuditLog(path, Clock()) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: asyncio.run(logs[number % 4].append([entry(number)])), range(40)))
    assert count(logs[0]) == 40


@pytest.mark.parametrize("block", [1, 7, 1000])
async def test_lines_longer_than_a_block_are_found(
    log: AuditLog, path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(log_module, "BLOCK_BYTES", block)
    for number in range(3):
        await log.append([entry(number)])
    with path.open("ab") as file:
        file.write(b"half a line")
    await log.append([entry(4)])
    assert count(log) == 4


async def test_only_the_end_of_a_long_log_is_read(log: AuditLog, path: Path) -> None:
    """A log may have any size, and each change appends to it."""
    await log.append([entry(number) for number in range(400)])
    data = path.read_bytes()
    assert len(data) > 2 * log_module.BLOCK_BYTES
    path.write_bytes(b"\0" * 1000 + data[1000:])
    await log.append([entry(400)])
    assert path.read_bytes()[: len(data)] == b"\0" * 1000 + data[1000:]
    assert path.read_bytes().count(b"\n") == data[1000:].count(b"\n") + 1


@pytest.mark.parametrize(("spare", "blocks"), [(0, 1), (-1, 2)])
async def test_no_more_is_read_than_the_last_line_takes(
    log: AuditLog, path: Path, monkeypatch: pytest.MonkeyPatch, spare: int, blocks: int
) -> None:
    """Where a block begins with the end of the line before the last, the next block is not needed."""
    await log.append([entry(number) for number in range(5)])
    block = len(path.read_bytes().splitlines(keepends=True)[-1]) + 1 + spare
    sizes: list[int] = []

    async def read(real: Callable[[int], Awaitable[bytes]], size: int) -> bytes:
        sizes.append(size)
        return await real(size)

    monkeypatch.setattr(log_module, "BLOCK_BYTES", block)
    monkeypatch.setattr(files, "open_async", WrappedFiles(read, "read"))
    await log.append([entry(5)])
    assert sizes == [block] * blocks


@pytest.mark.parametrize("rest", [b"{", b'{"number":3', b"\x00" * 100])
async def test_half_a_line_of_a_writer_that_died_is_removed(log: AuditLog, path: Path, rest: bytes) -> None:
    await log.append([entry(1)])
    with path.open("ab") as file:
        file.write(rest)
    await log.append([entry(2)])
    assert count(log) == 2


async def test_a_file_with_half_a_line_alone_begins_a_new_chain(log: AuditLog, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"number":1')
    await log.append([entry(1)])
    assert count(log) == 1


@pytest.mark.parametrize("content", [b"not an audit log\n", b"[]\n", b'{"number":1}\n', b"\xff\xfe\n", b"\n"])
async def test_a_foreign_file_is_left_alone(log: AuditLog, path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(AuditLogError, match="move the file away"):
        await log.append([entry(1)])
    assert path.read_bytes() == content


async def test_a_write_that_fails_leaves_what_was_there(
    log: AuditLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.append([entry(1)])
    before = path.read_bytes()

    async def write_half(write: Callable[[bytes], Awaitable[int]], data: bytes) -> int:
        await write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "open_async", WrappedFiles(write_half))
        with pytest.raises(OSError, match="No space"):
            await log.append([entry(2)])
    assert path.read_bytes() == before
    await log.append([entry(3)])
    assert count(log) == 2


async def test_a_line_that_cannot_be_synced_is_removed(
    log: AuditLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.append([entry(1)])
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            await log.append([entry(2)])
    assert path.read_bytes() == before


async def test_a_folder_that_cannot_be_synced_leaves_no_line(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is refused, so the log must not tell of it."""
    with monkeypatch.context() as patched:
        patched.setattr(files, "sync_folder", full_disk)
        with pytest.raises(OSError, match="No space"):
            await log.append([entry(1)])
        assert count(log) == 0
    await log.append([entry(2)])
    monkeypatch.setattr(files, "sync_folder", full_disk)
    await log.append([entry(3)])
    assert count(log) == 2, "the name of the file is in the folder already"


async def test_a_short_write_is_continued(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    async def write_ten_bytes(write: Callable[[bytes], Awaitable[int]], data: bytes) -> int:
        return await write(data[:10])

    monkeypatch.setattr(files, "open_async", WrappedFiles(write_ten_bytes))
    await log.append([entry(1), entry(2)])
    assert count(log) == 2


async def test_a_cancelled_append_is_complete(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    has_begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def wait_and_write(write: Callable[[bytes], Awaitable[int]], data: bytes) -> int:
        has_begun.set()
        await may_go_on.wait()
        return await write(data)

    monkeypatch.setattr(files, "open_async", WrappedFiles(wait_and_write))
    appending = asyncio.create_task(log.append([entry(1)]))
    await has_begun.wait()
    appending.cancel()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await appending
    assert count(log) == 1
    await log.append([entry(2)])
    assert count(log) == 2


async def test_a_planted_link_is_not_followed(log: AuditLog, path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    path.parent.mkdir()
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        await log.append([entry(1)])
    assert victim.read_bytes() == b""


async def test_a_lock_that_another_process_holds_is_not_waited_for_for_ever(path: Path) -> None:
    log = AuditLog(path, Clock(), lock_seconds=0.05)
    path.parent.mkdir()
    with files.locked(path, 1), pytest.raises(LockTimeout):
        await log.append([entry(1)])


def test_without_a_log_there_are_no_lines(log: AuditLog) -> None:
    with pytest.raises(FileNotFoundError):
        list(log.lines())
