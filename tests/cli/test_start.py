"""What is tried before the gateway serves, and who may use a data folder."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway.cli.serve import main
from gateway.cli.start import warn_of_missing_temporary_folder, warn_of_mounted_token_file
from gateway.storage.folder_lock import LOCK_FILE, FolderLock
from tests.support.gateway import environment
from tests.support.tokens import as_nobody, reachable_folder


def test_folders_that_cannot_be_written_are_listed_like_wrong_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with reachable_folder() as folder:
        monkeypatch.chdir(folder)
        with as_nobody():
            assert main(["--check", "--port", "nonsense"]) == 78
        monkeypatch.undo()
    problems = capsys.readouterr().err.splitlines()[1:]
    settings = ["GATEWAY_PORT", "GATEWAY_TOKENS_FILE", "GATEWAY_DATA_DIR"]
    assert [line.partition(": ")[0] for line in problems] == [f"  - {name}" for name in settings]
    assert all("chown -R" in line for line in problems[1:])


@pytest.mark.parametrize("name", ["usage.sqlite", "counters.sqlite-wal", "audit.jsonl"])
def test_a_file_that_another_user_has_left_in_the_data_folder_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The folder may be writable all the same: a first start as root, and then one as somebody else."""
    with reachable_folder() as folder:
        (folder / "data").mkdir()
        for made in (folder, folder / "data"):
            made.chmod(0o777)
        file = folder / "data" / name
        file.touch(0o400)
        monkeypatch.chdir(folder)
        with as_nobody():
            assert main(["--check"]) == 78
        told = capsys.readouterr().err
        assert f"GATEWAY_DATA_DIR: data/{name} cannot be read and written by user" in told
        file.chmod(0o666)
        with as_nobody():
            assert main(["--check"]) == 0
        monkeypatch.undo()


def test_a_folder_where_a_file_of_the_gateway_should_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Docker makes a folder where a file that is mounted does not exist."""
    (tmp_path / "data" / "usage.sqlite").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert main(["--check"]) == 78
    assert "data/usage.sqlite is a folder where a file has to be; move it away" in capsys.readouterr().err


def test_a_check_makes_no_data_folder_and_does_not_mind_a_gateway_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is run before a reload, too."""
    monkeypatch.chdir(tmp_path)
    assert main(["--check"]) == 0
    assert not (tmp_path / "data").exists()
    lock = FolderLock(tmp_path / "data", is_shared=False)
    assert main(["--check"]) == 0
    lock.close()


def start(folder: Path, **values: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "gateway", "--port", "0"]
    env = environment(folder, **values)
    return subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_second_gateway_on_a_data_folder_is_refused_unless_they_share_counters(tmp_path: Path) -> None:
    one = start(tmp_path)
    assert '"serving"' in first_line(one)
    other = start(tmp_path)
    _, error = other.communicate(timeout=30)
    assert other.returncode == 78
    assert f"GATEWAY_DATA_DIR: data is in use by another gateway (process {one.pid})" in error
    assert "GATEWAY_COUNTERS=sqlite for both" in error
    stop(one)
    sharing = [start(tmp_path, GATEWAY_COUNTERS="sqlite") for _ in range(2)]
    assert all('"serving"' in first_line(process) for process in sharing)
    for process in sharing:
        stop(process)


def test_a_lock_that_cannot_be_made_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "data" / LOCK_FILE).mkdir(parents=True)
    process = start(tmp_path)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 78
    assert "GATEWAY_DATA_DIR: data: Is a directory" in error


def test_a_mounted_token_file_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr("gateway.storage.write_check.MOUNTS", mounts)
    path = tmp_path / "api_tokens.json"
    mounts.write_text(f"36 35 98:0 /a {tmp_path} rw\n")
    warn_of_mounted_token_file(path)
    assert not caplog.records
    mounts.write_text(f"36 35 98:0 /a {path} rw\n")
    warn_of_mounted_token_file(path)
    assert "is a mount of its own" in caplog.text


def test_a_machine_without_a_folder_for_uploads_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_missing_temporary_folder()
    assert caplog.records == []

    def no_folder() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", no_folder)
    warn_of_missing_temporary_folder()
    (record,) = caplog.records
    assert "TMPDIR" in record.getMessage()
