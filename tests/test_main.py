"""``python -m gateway`` is the command ``gateway``."""

import subprocess
import sys
from pathlib import Path

from gateway import __version__
from tests.support.gateway import environment


def test_it_runs_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "--version"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert __version__ in done.stdout.decode()
