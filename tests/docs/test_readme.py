"""The README does what it says: every command and program in it is run."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import Block, block, blocks
from tests.support.gateway import ROOT, environment, gateway_process, pause

README = "README.md"


def test_every_block_is_run_by_a_test() -> None:
    unknown = [b for b in blocks(README) if b.use not in ("setup", "against=default", "check")]
    assert not unknown, "a block that nothing runs will be wrong one day"


def test_the_commands_work_against_the_running_default(tmp_path: Path) -> None:
    with gateway_process(tmp_path) as gateway:
        said = [_run(b, tmp_path, gateway.port) for b in blocks(README) if b.use == "against=default"]
    assert json.loads(said[0])["choices"][0]["message"]["content"] == "Hello!"
    assert said[1] == "Hello from Python!"
    assert "Found 1 token(s):" in said[2]
    assert "Created token 'ci'" in said[3]
    assert "Revoked token 'ci'" in said[3]
    assert "Deleted token 'ci'" in said[3]


def _run(found: Block, folder: Path, port: int) -> str:
    text = found.text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    if found.language == "python":
        command = [sys.executable, "-c", text]
    else:
        command = [
            "bash",
            "-euc",
            text.replace("python3 token_manager.py", f"{sys.executable} {ROOT}/token_manager.py"),
        ]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("line", block(README, "check").text.splitlines())
def test_the_settings_for_upstreams_are_good(tmp_path: Path, line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words[-2:] == ["make", "run"]
    settings = dict(word.split("=", 1) for word in words[:-2])
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--check"],
        cwd=tmp_path,
        env=environment(tmp_path, **settings),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git gives a newcomer, with what is about to be committed: no ignored file is among it."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in listed.decode().rstrip("\0").split("\0"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture
def bare_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A newcomer's: a home without anything in it. How packages are reached is the machine's affair."""
    kept = {name: os.environ[name] for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")}
    python = Path(sys.executable).resolve().parent
    yield {"HOME": str(tmp_path), "PATH": f"{python}:/usr/bin:/bin", **kept}


@pytest.mark.timeout(400)
def test_both_commands_work_on_a_fresh_clone(clone: Path, bare_environment: dict[str, str]) -> None:
    commands = [line.partition("#")[0].split() for line in block(README, "setup").text.splitlines()]
    assert commands == [["make", "run"], ["make", "test"]]
    assert _make_run_serves(clone, bare_environment)
    # All tests would run this one again, in a clone of the clone. A few do not reach the minimum of the coverage.
    few = {**bare_environment, "PYTEST_ADDOPTS": "tests/test_first_steps.py"}
    make = ["make", "test", "CHECK_COVERAGE=true"]
    done = subprocess.run(make, cwd=clone, env=few, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout.decode()[-2000:] + done.stderr.decode()[-2000:]
    assert b" passed" in done.stdout
    listed = subprocess.run(
        ["python3", "token_manager.py", "list"], cwd=clone, env=bare_environment, capture_output=True, check=False
    )
    assert listed.returncode == 0, listed.stderr.decode()


def _make_run_serves(clone: Path, environ: dict[str, str]) -> bool:
    port = _free_port()
    make = subprocess.Popen(
        ["make", "run"], cwd=clone, env={**environ, "GATEWAY_PORT": str(port)}, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and make.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                    return bool(json.load(answer)["backend"] == "echo")
            except OSError:
                pause(0.1)
        return False
    finally:
        os.killpg(make.pid, signal.SIGTERM)
        make.wait(60)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
