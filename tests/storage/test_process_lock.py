"""Whether the process that wrote something still runs."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from gateway.storage.process_lock import ProcessLock

CONTEXT = multiprocessing.get_context("fork")


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_process_runs_until_it_releases_its_lock(tmp_path: Path) -> None:
    one, other = ProcessLock(tmp_path / "f"), ProcessLock(tmp_path / "f")
    one.acquire()
    one.acquire()
    assert other.is_running(one.number)
    assert one.is_running(one.number), "also by its own account"
    assert not other.is_running(other.number)
    one.release()
    one.release()
    assert not other.is_running(one.number)
    assert files_in(tmp_path) == []
    one.acquire()
    assert other.is_running(one.number)


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "f")
    lock.acquire()
    assert files_in(tmp_path) == [f"f.process-{lock.number}"]
    assert (tmp_path / f"f.process-{lock.number}").stat().st_mode & 0o777 == 0o600


def test_a_killed_process_does_not_run_and_its_file_is_removed(tmp_path: Path) -> None:
    def serve(pipe: Connection) -> None:
        lock = ProcessLock(tmp_path / "f")
        lock.acquire()
        pipe.send(lock.number)
        signal.pause()

    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=serve, args=(theirs,))
    process.start()
    number = ours.recv()
    lock = ProcessLock(tmp_path / "f")
    assert lock.is_running(number)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert not lock.is_running(number)
    assert files_in(tmp_path) == []


def test_a_lock_that_another_holds_is_refused(tmp_path: Path) -> None:
    one, other = ProcessLock(tmp_path / "f"), ProcessLock(tmp_path / "f")
    other.number = one.number
    one.acquire()
    with pytest.raises(BlockingIOError):
        other.acquire()
    assert one.is_running(one.number)
