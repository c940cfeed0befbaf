"""Files that are complete or unchanged, locks that are released, and readers that no device can block."""

import asyncio
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.core.threads import Threads
from gateway.storage import files
from gateway.storage.files import LockTimeout

THREADS = Threads("files")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_signature_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = files.signature(path)
    assert files.signature(path) == before
    assert before.size == 3
    path.write_bytes(b"other")
    assert files.signature(path) != before
    with pytest.raises(FileNotFoundError):
        files.signature(tmp_path / "absent")


def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    files.make_folder(folder)
    assert mode(folder) == 0o700
    folder.chmod(0o755)
    files.make_folder(folder)
    assert mode(folder) == 0o755, "a folder that exists stays as it is"
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        files.make_folder(tmp_path / "file" / "c")


def test_a_new_file_is_for_its_owner_alone_and_one_that_exists_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    descriptor = files.make_file(path, os.O_RDWR)
    os.write(descriptor, b"content")
    os.close(descriptor)
    assert mode(path) == 0o600
    descriptor = files.make_file(path, os.O_RDWR)
    assert os.read(descriptor, 100) == b"content"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_file_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"):
        files.make_file(tmp_path / "link", os.O_RDWR)
    assert not (tmp_path / "victim").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change owners")
def test_what_root_creates_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    files.make_folder(tmp_path / "folder")
    os.close(files.make_file(tmp_path / "folder" / "file", os.O_RDWR))
    with files.locked(tmp_path / "folder" / "file", 1):
        pass
    for name in ("folder", "folder/file", "folder/file.lock"):
        owner = (tmp_path / name).stat()
        assert (owner.st_uid, owner.st_gid) == (65534, 65534), name


def test_a_file_whose_owner_cannot_be_set_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="not permitted"):
        files.make_file(tmp_path / "file", os.O_RDWR)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_lock_is_for_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with files.locked(path, 1):
        with pytest.raises(LockTimeout, match=r"file\.lock is held by another process for more than 0\.01 s"):  # noqa: SIM117
            with files.locked(path, 0.01):
                pass
        assert mode(tmp_path / "file.lock") == 0o600
    with files.locked(path, 0.01):
        pass


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), files.locked(tmp_path / "file", 1):
        raise ValueError("inside")
    with files.locked(tmp_path / "file", 0.01):
        pass


async def test_tasks_take_turns_with_a_lock(tmp_path: Path) -> None:
    path, order = tmp_path / "file", []

    async def work(number: int) -> None:
        async with files.locked_async(path, 10, THREADS):
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(work(number) for number in range(4)))
    assert sorted(order) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert order[::2] == order[1::2], "nobody came in between"


async def test_a_lock_that_is_held_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "file"
    async with files.locked_async(path, 1, THREADS):
        with pytest.raises(LockTimeout):
            async with files.locked_async(path, 0.01, THREADS):
                pass
    with pytest.raises(ValueError, match="inside"):
        async with files.locked_async(path, 0.01, THREADS):
            raise ValueError("inside")
    async with files.locked_async(path, 0.01, THREADS):
        pass


async def test_a_cancelled_wait_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "file"
    entered: list[bool] = []

    async def work() -> None:
        async with files.locked_async(path, 10, THREADS):
            entered.append(True)

    async with files.locked_async(path, 1, THREADS):
        waiting = asyncio.create_task(work())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not entered
    async with files.locked_async(path, 0.01, THREADS):
        pass


async def test_a_replacement_that_is_cancelled_while_it_is_renamed_is_made_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its caller would log as failed what everybody reads from now on."""
    began, may_end = threading.Event(), threading.Event()
    replace = Path.replace

    def slow_replace(self: Path, target: Path) -> Path:
        began.set()
        assert may_end.wait(10)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", slow_replace)
    path = tmp_path / "file"
    replacing = asyncio.create_task(files.replace(path, b"new", THREADS))
    await asyncio.to_thread(began.wait, 10)
    replacing.cancel()
    await asyncio.sleep(0)
    may_end.set()
    await replacing
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "to[kens.json"
    for name in (".to[kens.json.0123.tmp", ".to[kens.json.tmp", ".other.0123.tmp", "to[kens.json"):
        (tmp_path / name).touch()
    (tmp_path / ".to[kens.json.folder.tmp").mkdir()
    files.sweep(path)
    assert {found.name for found in tmp_path.iterdir()} == {
        ".to[kens.json.tmp", ".other.0123.tmp", "to[kens.json", ".to[kens.json.folder.tmp"
    }  # fmt: skip


def test_a_folder_is_synced(tmp_path: Path) -> None:
    files.sync_folder(tmp_path)
    with pytest.raises(NotADirectoryError):
        (tmp_path / "file").touch()
        files.sync_folder(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        files.sync_folder(tmp_path / "absent")


async def test_tasks_that_wait_for_a_lock_leave_the_threads_to_its_holder(tmp_path: Path) -> None:
    """With a waiting thread for each, the one that holds the lock could not finish its work in a thread."""

    async def work() -> None:
        async with files.locked_async(tmp_path / "file", 20, THREADS):
            await asyncio.to_thread((tmp_path / "other").touch)

    await asyncio.gather(*(work() for _ in range(40)))


async def test_a_file_is_opened_written_read_and_closed_without_the_pool_of_the_event_loop(tmp_path: Path) -> None:
    may_end = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocking = loop.run_in_executor(None, may_end.wait, 30)
    threads = Threads("files")
    async with asyncio.timeout(20):
        async with files.open_async(threads, tmp_path / "file", "wb", os.open) as file:
            await file.write(b"content")
        async with files.open_async(threads, tmp_path / "file", "rb", os.open) as file:
            assert await file.read() == b"content"
    assert file.closed
    may_end.set()
    await blocking


async def test_a_file_is_closed_when_the_block_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(ValueError, match="inside"):
        async with files.open_async(Threads("files"), tmp_path / "file", "rb", os.open) as file:
            raise ValueError("inside")
    assert file.closed
    with pytest.raises(FileNotFoundError):
        async with files.open_async(Threads("files"), tmp_path / "absent", "rb", os.open):
            pass
