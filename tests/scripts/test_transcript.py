"""The transcript: equal for two runs, and different where an answer differs."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from scripts.transcript.normalise import Normaliser

ROOT = Path(__file__).parents[2]
SECRET = "sk-" + "Ab1" * 16 + "c"


def _transcript(checkout: Path) -> str:
    command = [sys.executable, "-m", "scripts.transcript", str(checkout), "--only", "allow-open"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=True)
    return done.stdout


def test_two_runs_are_equal_and_a_changed_answer_is_seen(tmp_path: Path) -> None:
    before = _transcript(ROOT)
    assert _transcript(ROOT) == before
    assert "< HTTP/1.1 404 Not Found\n" in before

    shutil.copytree(ROOT / "gateway", tmp_path / "gateway")
    changed = 0
    for path in (tmp_path / "gateway").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "does not exist or you do not" in text:
            path.write_text(
                text.replace("does not exist or you do not", "is not there or you do not"), encoding="utf-8"
            )
            changed += 1
    assert changed
    after = _transcript(tmp_path)
    assert set(after.splitlines()) ^ set(before.splitlines())
    assert "is not there or you do not" in after


def test_what_is_random_gets_the_same_name_wherever_it_appears() -> None:
    normaliser = Normaliser({"/folder": "<folder>"})
    said = normaliser.text(
        f"{SECRET} in /folder, again {SECRET}, begins with {SECRET[:14]}, tok_{'a' * 20}, tok_{'b' * 20}"
    )
    assert said == "<secret 1> in <folder>, again <secret 1>, begins with <prefix 1>, <token 1>, <token 2>"
    assert normaliser.text(f"tok_{'b' * 20}") == "<token 2>"


def test_only_times_of_now_are_replaced() -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    normaliser = Normaliser({})
    assert normaliser.text(f"{now}, 2020-01-31T10:30:00Z, {now[:10]}") == "<time>, 2020-01-31T10:30:00Z, <day>"


def test_numbers_of_metrics_are_left_out_and_their_names_and_labels_stay() -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n"
    page = 'requests_total{route="/v1/{rest...}",status="200"} 12.0\nworkers 1.0\n'
    said = Normaliser({}).reply(head + page)
    assert said == head + 'requests_total{route="/v1/{rest...}",status="200"} <n>\nworkers <n>\n'
