"""Space that is kept back for revocations, and what is known of a disk that is full."""

import errno
import logging
import os
from pathlib import Path

import pytest

from gateway.storage.disk_reserve import DiskMonitor, DiskReserve, is_out_of_space

KIB = 1024


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def full_disk(*_arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_reserve_has_blocks_of_the_disk_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "audit.jsonl", 256 * KIB)
    assert reserve.keep()
    assert reserve.path == tmp_path / "audit.jsonl.reserve"
    assert allocated(reserve.path) >= 256 * KIB
    assert reserve.path.stat().st_mode & 0o777 == 0o600
    reserve.size = 512 * KIB
    assert reserve.keep()
    assert allocated(reserve.path) >= 512 * KIB


def test_a_reserve_is_given_up_once_and_made_again(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "audit.jsonl", 64 * KIB)
    assert not reserve.release()
    reserve.keep()
    assert reserve.release()
    assert not reserve.path.exists()
    assert not reserve.release()
    assert reserve.keep()
    assert reserve.path.exists()


def test_a_reserve_takes_a_small_part_of_the_disk(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    eighth = disk.f_blocks * disk.f_frsize // 8
    asked: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "posix_fallocate", lambda descriptor, start, size: asked.append(size))
        DiskReserve(tmp_path / "file", eighth * 100).keep()
    assert asked == [eighth]


def test_a_reserve_that_finds_no_space_leaves_what_there_is_to_others(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "file", 64 * KIB)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full_disk)
        assert not reserve.keep()
        assert not reserve.path.exists()
        assert reserve.problem() == f"the disk of {tmp_path} is full"
    assert reserve.problem() is None


def test_a_disk_with_too_little_space_or_for_reading_only_is_a_problem(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "file", 64 * KIB)
    reserve.keep()
    disk = list(os.statvfs(tmp_path))
    with pytest.MonkeyPatch.context() as patched:
        nothing_free = [*disk[:4], 1, *disk[5:]]
        patched.setattr(os, "statvfs", lambda path: os.statvfs_result(nothing_free))
        assert reserve.problem() == f"the disk of {tmp_path} is full"
        read_only = [*disk[:8], disk[8] | os.ST_RDONLY, *disk[9:]]
        patched.setattr(os, "statvfs", lambda path: os.statvfs_result(read_only))
        assert reserve.problem() == f"the disk of {tmp_path} is read-only"


def test_a_folder_that_does_not_exist_needs_no_reserve(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "data" / "file", 64 * KIB)
    assert reserve.keep()
    assert reserve.problem() is None
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("number", "is_full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_which_errors_say_that_the_disk_is_full(number: int, is_full: bool) -> None:
    assert is_out_of_space(OSError(number, "x")) is is_full


async def test_a_full_disk_is_logged_once_and_so_is_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monitor = DiskMonitor([DiskReserve(tmp_path / "one", 64 * KIB), DiskReserve(tmp_path / "two", 64 * KIB)])
    (tmp_path / "one").write_bytes(b"12345")
    await monitor.check()
    assert monitor.problem is None
    assert monitor.file_bytes == {tmp_path / "one": 5, tmp_path / "two": 0}
    (tmp_path / "two.reserve").unlink()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full_disk)
        await monitor.check()
        await monitor.check()
    assert monitor.problem == f"the disk of {tmp_path} is full"
    await monitor.check()
    assert monitor.problem is None
    assert (tmp_path / "two.reserve").exists()
    assert [record.getMessage() for record in caplog.records] == [
        "the disk cannot be written; tokens can still be revoked",
        "the disk can be written again",
    ]
