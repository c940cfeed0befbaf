"""A file that is written in place has the old content or the new one, whenever the writer dies."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.storage import in_place

OLD, NEW = b'{"old": "content"}\n', b'{"new": "which is much longer than what was there before it"}\n'


def states(path: Path, before: bytes, after: bytes, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Returns what is in the file after each system call that changes it, and after half of each write."""
    found: list[bytes] = []
    write, cut = os.pwrite, os.ftruncate

    def in_halves(descriptor: int, data: bytes, at: int) -> int:
        for end in (len(data) // 2, len(data)):
            write(descriptor, data[:end], at)
            found.append(path.read_bytes())
        return len(data)

    def cut_and_look(descriptor: int, size: int) -> None:
        cut(descriptor, size)
        found.append(path.read_bytes())

    path.write_bytes(before)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", in_halves)
        patch.setattr(os, "ftruncate", cut_and_look)
        in_place.write(path, after)
    return found


@pytest.mark.parametrize(("before", "after"), [(OLD, NEW), (NEW, OLD), (OLD, OLD), (b"", NEW), (NEW, b"")])
def test_every_crash_leaves_one_of_both_contents_and_the_next_write_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, after: bytes
) -> None:
    path = tmp_path / "file"
    left = states(path, before, after, monkeypatch)
    assert path.read_bytes() == after
    assert len(left) >= 3
    for data in left:
        assert in_place.content(data) in (before, after)
        path.write_bytes(data)
        in_place.write(path, b"third")
        assert path.read_bytes() == b"third"


@pytest.mark.parametrize("size", range(150))
def test_a_journal_that_was_cut_off_anywhere_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A power cut may keep less of a file than was written, or blocks without their content."""
    whole = max(states(tmp_path / "file", OLD, NEW, monkeypatch), key=len)
    assert in_place.content(whole) == NEW
    cut = whole[:-1][: len(OLD) + size]
    assert in_place.content(cut).strip() == OLD.strip()
    assert in_place.content(OLD + b"\0" * size) == OLD


def test_other_contents_with_a_nul_are_left_to_whoever_reads_them() -> None:
    assert in_place.content(b"{}\0garbage") == b"{}\0garbage"
    assert in_place.content(OLD) == OLD


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    write = os.pwrite

    def fill(descriptor: int, data: bytes, at: int) -> int:
        write(descriptor, data[:10], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fill)
    with pytest.raises(OSError, match="No space left"):
        in_place.write(path, NEW)
    assert path.read_bytes() == OLD


def test_what_cannot_be_written_in_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with pytest.raises(ValueError, match="NUL"):
        in_place.write(path, b"a\0b")
    monkeypatch.setattr(in_place, "MAX_BYTES", 100)
    with pytest.raises(OSError, match="too large"):
        in_place.write(path, NEW)
    assert path.read_bytes() == OLD


def test_readers_and_writers_wait_for_each_other_but_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with path.open("rb+") as one, path.open("rb+") as other, path.open("rb+") as third:
        in_place.lock(one.fileno(), fcntl.LOCK_SH, 0)
        with in_place.locked(other.fileno(), fcntl.LOCK_SH), pytest.raises(in_place.FileLocked):
            in_place.lock(third.fileno(), fcntl.LOCK_EX, 0.02)
        one.close()
        in_place.lock(third.fileno(), fcntl.LOCK_EX, 0)
        with pytest.raises(in_place.FileLocked):
            in_place.lock(other.fileno(), fcntl.LOCK_SH, 0)


@pytest.mark.parametrize(
    ("number", "is_refused"), [(errno.ENOLCK, False), (errno.EOPNOTSUPP, False), (errno.EIO, True)]
)
def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_refused: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    monkeypatch.setattr(fcntl, "flock", _failing(number))
    if is_refused:
        with pytest.raises(OSError, match="flock"):
            in_place.write(path, NEW)
    else:
        in_place.write(path, NEW)
        assert path.read_bytes() == NEW


def _failing(number: int) -> Callable[[int, int], None]:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, "flock")

    return flock


@pytest.mark.parametrize(("number", "expected"), [(errno.EBUSY, True), (errno.EXDEV, True), (errno.EACCES, False)])
def test_which_errors_of_a_rename_mean_that_a_file_cannot_be_replaced(number: int, expected: bool) -> None:
    assert in_place.is_needed(OSError(number, "")) is expected
