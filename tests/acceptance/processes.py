"""Servers as child processes: a free port, a log file, readiness by polling, and an end for exactly what was started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.1
STOP_SECONDS = 15
LOG_TAIL = 40
# Only what a program needs to run: a key or a proxy set in the caller's shell would change what is tested.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class NotReadyError(RuntimeError):
    """A server ended or stayed silent instead of answering."""


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1", **extra}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-LOG_TAIL:])


def answers(url: str) -> bool:
    """Any HTTP answer counts but 5xx: a server that asks for a key is up, one that says 503 is not."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def wait_until_ready(process: subprocess.Popen[bytes], url: str, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotReadyError(f"{log.stem} ended with status {process.returncode}:\n{tail(log)}")
        if answers(url):
            return
        time.sleep(POLL_SECONDS)
    raise NotReadyError(f"{log.stem} did not answer within {seconds:.0f} s:\n{tail(log)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started: each server leads a session of its own, so its group holds no one else."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)


@contextmanager
def server(
    command: Sequence[str], environment: Mapping[str, str], ready_url: str, seconds: float, log: Path
) -> Iterator[None]:
    """The server runs inside the `with`, in the folder of its log."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(process, ready_url, seconds, log)
        yield
    finally:
        stop(process)
