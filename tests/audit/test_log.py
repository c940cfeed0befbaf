"""The log on disk: whole lines or none, one chain whoever writes, and a clear word where it cannot go on."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.audit import log as journal
from gateway.audit.hash_chain import verify
from gateway.audit.log import AuditLog, AuditLogError
from gateway.storage import files
from gateway.storage.files import LockTimeout
from tests.audit.test_hash_chain import entry
from tests.support.tokens import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "audit.jsonl"


@pytest.fixture
def log(path: Path) -> AuditLog:
    return AuditLog(path, Clock())


def count(log: AuditLog) -> int:
    """How many lines there are; they must be one whole chain."""
    verdict = verify(log.lines())
    assert verdict.broken is None
    return verdict.end.number


def test_the_first_entry_makes_folder_and_file_for_its_owner_alone(log: AuditLog, path: Path) -> None:
    os.umask(0o000)
    try:
        log.append([entry(1), entry(2)])
    finally:
        os.umask(0o022)
    assert count(log) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_many_writers_make_one_chain(path: Path) -> None:
    logs = [AuditLog(path, Clock()) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: logs[number % 4].append([entry(number)] * (1 + number % 3)), range(60)))
    assert count(logs[0]) == 20 * (1 + 2 + 3)


def test_lines_longer_than_a_block_are_found(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_BLOCK", 7)
    for number in range(5):
        log.append([entry(number)])
    assert count(log) == 5


@pytest.mark.parametrize("rest", [b"{", b'{"number":3', b"\x00" * 100])
def test_half_a_line_of_a_writer_that_died_is_taken_away(log: AuditLog, path: Path, rest: bytes) -> None:
    log.append([entry(1)])
    with path.open("ab") as file:
        file.write(rest)
    log.append([entry(2)])
    assert count(log) == 2


@pytest.mark.parametrize("content", [b"not an audit log\n", b"[]\n", b'{"number":1}\n', b"\xff\xfe\n"])
def test_a_foreign_file_is_left_alone(log: AuditLog, path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(AuditLogError, match="move the file away"):
        log.append([entry(1)])
    assert path.read_bytes() == content


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_leaves_what_was_there(
    log: AuditLog, path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    log.append([entry(1)])
    before = path.read_bytes()

    def fail(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journal.os, call, fail)
        with pytest.raises(OSError, match="No space"):
            log.append([entry(2)])
    assert path.read_bytes() == before
    log.append([entry(3)])
    assert count(log) == 2


def test_a_folder_that_cannot_be_synced_leaves_no_line(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is refused, so the log must not tell of it."""

    def fail(_folder: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(files, "sync_folder", fail)
        with pytest.raises(OSError, match="Input/output"):
            log.append([entry(1)])
    assert count(log) == 0
    log.append([entry(2)])
    assert count(log) == 1


def test_a_file_that_cannot_be_handed_over_leaves_nothing_open(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_paths: Path) -> None:
        raise OSError(1, "Operation not permitted")

    log.append([entry(1)])
    log.path.unlink()
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(files, "_hand_over", fail)
    with pytest.raises(OSError, match="not permitted"):
        files.make_file(log.path, os.O_RDWR)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_short_write_is_finished(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(journal.os, "pwrite", lambda to, data, place: whole(to, bytes(data[:10]), place))
    log.append([entry(1), entry(2)])
    assert count(log) == 2


def test_a_planted_link_is_not_followed(log: AuditLog, path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    path.parent.mkdir()
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        log.append([entry(1)])
    assert victim.read_bytes() == b""


def test_a_log_that_somebody_holds_is_not_waited_for_for_ever(path: Path) -> None:
    log = AuditLog(path, Clock(), lock_seconds=0.05)
    path.parent.mkdir()
    with files.locked(path, 1), ThreadPoolExecutor(1) as pool, pytest.raises(LockTimeout):
        pool.submit(log.append, [entry(1)]).result()


def test_without_a_log_there_are_no_lines(log: AuditLog) -> None:
    with pytest.raises(FileNotFoundError):
        list(log.lines())
