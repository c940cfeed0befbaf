"""The command ``gateway``: what it checks before it serves."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import __version__
from gateway.cli.serve import main
from gateway.storage.folder_lock import LOCK_FILE, FolderLock
from tests.server.test_worker import until
from tests.support.gateway import environment


def gateway(folder: Path, *arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(folder, **values), capture_output=True, text=True, timeout=60, check=False
    )


def test_a_wrong_configuration_ends_with_78_and_every_problem(tmp_path: Path) -> None:
    (tmp_path / "api_tokens.json").write_text("{")
    ended = gateway(tmp_path, "--check", GATEWAY_PORT="x", GATEWAY_HOTS="y")
    assert ended.returncode == 78
    assert [line.partition(": ")[0] for line in ended.stderr.splitlines()] == [
        "The configuration cannot be used:",
        "  - GATEWAY_HOTS",
        "  - GATEWAY_PORT",
        "  - GATEWAY_TOKENS_FILE",
    ]
    assert "did you mean GATEWAY_HOST?" in ended.stderr
    assert "must be a whole number from 0 to 65535, not 'x'" in ended.stderr
    ended = gateway(tmp_path, "--check", GATEWAY_BACKEND="nonsense")
    assert ended.returncode == 78
    assert "api_tokens.json: line 1, column 2" in ended.stderr
    assert "GATEWAY_BACKEND: " in ended.stderr


def test_a_valid_configuration_is_reported(tmp_path: Path) -> None:
    assert gateway(tmp_path, "--check", "--port", "0").returncode == 0
    assert gateway(tmp_path, "--nonsense").returncode == 2


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"gateway {__version__}\n"


def test_a_link_to_nowhere_in_place_of_the_token_file_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Perhaps a volume is not mounted: the gateway must not take the missing file for open mode."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "api_tokens.json").symlink_to(tmp_path / "absent")
    assert main(["--check"]) == 78
    assert "GATEWAY_TOKENS_FILE: api_tokens.json is a link that leads nowhere" in capsys.readouterr().err


def test_prices_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gateway.toml").write_text('[prices."my-model"]\ninput = -1\noutput = 2\n')
    assert main(["--check", "--config", "gateway.toml"]) == 78
    assert "GATEWAY_CONFIG: prices.my-model.input: must be from 0" in capsys.readouterr().err


def test_what_was_corrected_is_told_by_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_REDIS_PORT", "tcp://10.0.0.2:6379")
    monkeypatch.setenv("GATEWAY_UPSTREAM_API_KEY", '"sk-abcdefgh"')
    assert main(["--check"]) == 0
    printed = capsys.readouterr().out
    assert "  - GATEWAY_REDIS_PORT: ignored" in printed
    assert "  - GATEWAY_UPSTREAM_API_KEY: the quotes" in printed
    assert "sk-abcdefgh" not in printed


def has_open(pid: int, name: str) -> bool:
    """Whether a process has a file of this name open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            if link.readlink().name == name:
                return True
    return False


@contextlib.contextmanager
def starting(folder: Path, workers: int) -> Iterator[tuple["subprocess.Popen[str]", FolderLock]]:
    """A gateway that waits in the middle of its start until the lock of its data folder is closed."""
    values = {"GATEWAY_PORT": "0", "GATEWAY_LOG_FORMAT": "json", "GATEWAY_WORKERS": str(workers)}
    lock = FolderLock(folder / "data", is_shared=False)
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "gateway"]
        process = subprocess.Popen(command, cwd=folder, env=environment(folder, **values), stderr=log, text=True)
        try:
            until(lambda: has_open(process.pid, LOCK_FILE))
            yield process, lock
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("workers", [1, 2])
def test_signals_that_come_during_the_start_wait_for_its_end(tmp_path: Path, workers: int) -> None:
    with starting(tmp_path, workers) as (process, lock):
        process.send_signal(signal.SIGHUP)
        lock.close()
        until(lambda: "the settings are reloaded" in (tmp_path / "log").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with starting(tmp_path, workers) as (process, lock):
        process.send_signal(signal.SIGTERM)
        lock.close()
        assert process.wait(30) == 0
    assert '"message":"draining"' in (tmp_path / "log").read_text()


def test_a_start_that_fails_leaves_signals_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    (tmp_path / "api_tokens.json").write_text("{")
    assert main([]) == 78
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
