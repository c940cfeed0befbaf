"""Starts gateways of a checkout and runs its commands, each in a folder of its own and with no setting of this user."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 30.0
STOP_SECONDS = 15.0
COMMAND_SECONDS = 30.0
_POLL_SECONDS = 0.01
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit code."""

    stdout: str
    stderr: str
    code: int


class Gateway:
    """``python -m gateway`` of a checkout, on a free port of loopback; ``folder`` is its working directory."""

    def __init__(self, checkout: Path, folder: Path, settings: Mapping[str, str], log: Path) -> None:
        """Starts it. Raises RuntimeError where it does not begin to serve."""
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway"],
                cwd=folder,
                env=environment(checkout, {"GATEWAY_PORT": "0", **settings}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.port = self._wait_until_it_serves()

    def stop(self) -> str:
        """Ends it with SIGTERM, and returns everything it has printed with its exit code. Its data is written then."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return f"{self.printed()}(exit code {self._process.returncode})\n"

    def tell_to_end(self) -> None:
        """SIGTERM, and no wait for the end."""
        self._process.terminate()

    def printed(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="backslashreplace")

    def _wait_until_it_serves(self) -> int:
        """The port, out of the banner: asking for it over HTTP would be seen in the access log."""
        deadline = time.monotonic() + READY_SECONDS
        while (found := _ADDRESS.search(self.printed())) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway does not serve:\n{self.stop()}")
            time.sleep(_POLL_SECONDS)
        return int(found[1])


def environment(checkout: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a process of the checkout."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "COLUMNS": "100",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        **settings,
    }


def run(checkout: Path, folder: Path, arguments: Sequence[str], settings: Mapping[str, str], stdin: str = "") -> Result:
    """Runs ``python ARGUMENTS`` to its end. Raises subprocess.TimeoutExpired."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(checkout, settings),
        input=stdin.encode(),
        capture_output=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    return Result(
        done.stdout.decode(errors="backslashreplace"), done.stderr.decode(errors="backslashreplace"), done.returncode
    )
