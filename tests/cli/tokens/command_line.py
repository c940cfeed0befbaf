"""Runs ``token_manager.py`` as its users do: a process of its own, in a folder of its own."""

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.gateway import ROOT, environment, token_manager
from tests.support.tokens import content, entry

TWO = content(
    entry("sk-a1b2c3d4e5fghijklmnop", name="my-application", prefix="sk-a1b2c3d4e5f", last_used="2025-11-26T11:45:23Z"),
    entry(
        "sk-x9y8z7w6v5uabcdefghij",
        name="mobile-app",
        prefix="sk-x9y8z7w6v5u",
        created_at="2025-11-25T15:20:00Z",
        revoked_at="2025-12-01T00:00:00Z",
    ),
)


def run(folder: Path, *arguments: str, stdin: bytes = b"", code: int = 0, **values: str) -> str:
    """What it prints where results go; complaints are part of the assertion that fails."""
    ended = token_manager(folder, *arguments, stdin=stdin, **values)
    assert (ended.returncode, b"Traceback" in ended.stderr) == (code, False), ended.stderr.decode()
    return ended.stdout.decode()


def run_json(folder: Path, *arguments: str, stdin: bytes = b"", code: int = 0) -> Any:
    """The one JSON document that it prints, and nothing else anywhere."""
    ended = token_manager(folder, *arguments, "--json", stdin=stdin)
    assert (ended.returncode, ended.stderr) == (code, b""), ended.stderr.decode()
    return json.loads(ended.stdout)


def run_failing(folder: Path, *arguments: str, code: int, stdin: bytes = b"") -> str:
    ended = token_manager(folder, *arguments, stdin=stdin)
    text = ended.stderr.decode()
    assert (ended.returncode, ended.stdout, "Traceback" in text) == (code, b"", False), text
    return text


def run_at_terminal(folder: Path, *arguments: str, typed: str = "", **values: str) -> tuple[int, str]:
    """What a person sees who runs this at a terminal, and the exit code."""
    ours, theirs = pty.openpty()
    command = [sys.executable, str(ROOT / "token_manager.py"), *arguments]
    kept = {**environment(folder, **values), "TERM": "xterm-256color", "COLUMNS": "200"}
    with subprocess.Popen(command, cwd=folder, env=kept, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = bytearray()
        while select.select([ours], [], [], 30)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            shown += part
            if not part:
                break
        code = process.wait(30)
    os.close(ours)
    return code, shown.decode().replace("\r\n", "\n")
