"""The coverage gate fails below its minimums, for statements and for branches."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import check_coverage


def file(covered: int, covered_branches: int) -> dict[str, Any]:
    """A file of 100 statements and 10 branches."""
    summary = {
        "num_statements": 100,
        "covered_lines": covered,
        "num_branches": 10,
        "covered_branches": covered_branches,
    }
    return {"summary": summary, "missing_lines": [7] * (100 - covered), "missing_branches": []}


def report(**files: dict[str, Any]) -> dict[str, Any]:
    whole = {name: file(100, 10) for name in ("auth", "tokens", "limits")} | files
    return {"files": {f"gateway/{name}/x.py": one for name, one in whole.items()} | {"gateway/app.py": file(100, 10)}}


@pytest.mark.parametrize(
    ("files", "problems"),
    [
        ({}, []),
        ({"http": file(99, 9)}, []),
        ({"http": file(70, 10)}, ["all packages: statement coverage is 94.00 %, below 95 %"]),
        ({"http": file(100, 7)}, ["all packages: branch coverage is 94.00 %, below 95 %"]),
        ({"auth": file(99, 10)}, ["auth: statement coverage is 99.00 %, below 100 %"]),
        ({"limits": file(100, 9)}, ["limits: branch coverage is 90.00 %, below 100 %"]),
    ],
)
def test_minimums(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, Any], problems: list[str]
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report(**files)))
    assert check_coverage.main([str(path)]) == bool(problems)
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if "below" in line] == problems
    assert ("lines [7" in printed) == any("statement" in problem for problem in problems)


def test_a_package_that_is_not_measured_at_all_is_no_success() -> None:
    packages = check_coverage.by_package({"files": {"gateway/http/x.py": file(100, 10)}})
    assert check_coverage.problems(packages) == [f"{name}: not measured" for name in ("auth", "tokens", "limits")]
