"""What a chat request of a limited token costs in instructions, which no other program can change."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import stages
from tests.support.gateway import ROOT

MAX_GROWTH = 1.05
MAX_GROWTH_OF_OTHER_VERSION = 1.25
"""For a version of Python without a figure of its own, against the nearest one that has one."""


@pytest.fixture(scope="module")
def counts() -> dict[str, float]:
    return stages.counted_by(Path(sys.executable))


def limit(recorded: dict[str, dict[str, float]], version: str) -> float:
    if version in recorded:
        return sum(recorded[version].values()) * MAX_GROWTH
    return max(sum(one.values()) for one in recorded.values()) * MAX_GROWTH_OF_OTHER_VERSION


def test_a_limited_chat_needs_no_more_instructions_than_before(counts: dict[str, float]) -> None:
    recorded = json.loads(stages.RESULTS.read_text())["instructions"]
    reached, most = sum(counts.values()), limit(recorded, stages.minor_version())
    before = recorded.get(stages.minor_version(), {})
    grown = {stage: (before[stage], count) for stage, count in counts.items() if count > before.get(stage, count)}
    assert reached <= most, (
        f"a limited chat takes {reached:.0f} instructions, at most {most:.0f} are allowed; these have grown: {grown}. If that "
        "has to be so, `make bench-stages` records the new figures in bench/stages.json and docs/performance.md"
    )


def test_every_stage_is_reached(counts: dict[str, float]) -> None:
    """A stage without instructions would mean that its files have other names now."""
    assert [stage for stage, count in counts.items() if count < 20] == []
    assert set(counts) == set(stages.BUDGET_US)


def test_a_version_without_a_figure_has_a_bound() -> None:
    recorded = {"3.11": {"parse": 100.0}, "3.13": {"parse": 80.0}}
    assert limit(recorded, "3.11") == pytest.approx(105)
    assert limit(recorded, "3.99") == pytest.approx(125)


@pytest.mark.parametrize("start", [start for start, _ in stages.STAGE_OF])
def test_files_that_have_a_stage_exist(start: str) -> None:
    path, _, function = start.partition(":")
    assert (ROOT / "gateway" / path).exists()
    assert f"def {function.rpartition('.')[2]}(" in (ROOT / "gateway" / path).read_text() if function else True


@pytest.mark.parametrize(
    ("function", "stage"),
    [
        ("server/http1_exchange.py:Http1Exchange.send", "answer"),
        ("server/http1_exchange.py:Http1Exchange.__init__", "parse"),
        ("limits/presentation.py:rate_limit_headers", "answer"),
        ("limits/limiter.py:Limiter.reserve", "admit"),
        ("core/clock.py:SteadyClock.__call__", None),
    ],
)
def test_a_function_belongs_to_the_first_stage_that_matches(function: str, stage: str | None) -> None:
    file, _, name = function.partition(":")
    assert stages.stage_of(stages.PACKAGE + file, name) == stage


def test_the_command_says_what_it_can_do() -> None:
    command = [sys.executable, "-m", "bench.stages", "--help"]
    assert "--count" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
