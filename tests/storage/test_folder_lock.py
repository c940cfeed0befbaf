"""Two gateways on one data folder: refused, unless both share what they count."""

import os
import signal
from pathlib import Path

import pytest

from gateway.storage.folder_lock import LOCK_FILE, FolderInUse, FolderLock


def test_a_folder_is_for_one(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    one = FolderLock(folder, is_shared=False, seconds=0)
    for is_shared in (False, True):
        with pytest.raises(FolderInUse, match=rf"in use by another gateway \(process {os.getpid()}\)"):
            FolderLock(folder, is_shared=is_shared, seconds=0)
    one.close()
    FolderLock(folder, is_shared=False, seconds=0).close()


def test_those_that_share_go_together_and_keep_others_away(tmp_path: Path) -> None:
    one, other = (FolderLock(tmp_path, is_shared=True, seconds=0) for _ in range(2))
    one.close()
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path, is_shared=False, seconds=0)
    other.close()
    FolderLock(tmp_path, is_shared=False, seconds=0).close()


def test_a_worker_keeps_the_lock_after_its_supervisor_was_killed(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, is_shared=False, seconds=0)
    if (worker := os.fork()) == 0:
        signal.pause()
    try:
        lock.close()
        with pytest.raises(FolderInUse):
            FolderLock(tmp_path, is_shared=False, seconds=0)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    FolderLock(tmp_path, is_shared=False, seconds=0).close()


def test_a_lock_that_cannot_be_made_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        FolderLock(tmp_path, is_shared=False, seconds=0)
    assert not (tmp_path / "victim").exists()
