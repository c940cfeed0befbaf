"""Prints the coverage of each package from a JSON report of coverage.py, and fails below a minimum.

``coverage json -o REPORT && python scripts/check_coverage.py REPORT``
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

TOTAL_MINIMUM = 95.0
"""In percent, of statements and of branches, over the whole package."""
MINIMUM = {"auth": 100.0, "tokens": 100.0, "limits": 100.0}
"""In percent, for packages whose faults let somebody in, or spend somebody's money."""


class Coverage(NamedTuple):
    """Counts of a package."""

    statements: int = 0
    covered_statements: int = 0
    branches: int = 0
    covered_branches: int = 0

    def plus(self, other: "Coverage") -> "Coverage":
        return Coverage(*(mine + its for mine, its in zip(self, other, strict=True)))

    @property
    def statement_percent(self) -> float:
        return _percent(self.covered_statements, self.statements)

    @property
    def branch_percent(self) -> float:
        return _percent(self.covered_branches, self.branches)


def _percent(covered: int, count: int) -> float:
    return 100 * covered / count if count else 100.0


def by_package(report: Mapping[str, Any]) -> dict[str, Coverage]:
    """Returns the counts of each package below ``gateway``; modules directly in it count as the package ``.``."""
    found: dict[str, Coverage] = {}
    for name, file in report["files"].items():
        parts = Path(name).parts
        package = parts[1] if len(parts) > 2 else "."
        found[package] = found.get(package, Coverage()).plus(_counts(file["summary"]))
    return dict(sorted(found.items()))


def _counts(summary: Mapping[str, Any]) -> Coverage:
    return Coverage(
        summary["num_statements"], summary["covered_lines"], summary["num_branches"], summary["covered_branches"]
    )


def problems(packages: Mapping[str, Coverage]) -> list[str]:
    """Returns a sentence for each minimum that is not reached."""
    rows = [(name, packages[name], minimum) for name, minimum in MINIMUM.items() if name in packages]
    rows.append(("all packages", total(packages), TOTAL_MINIMUM))
    unmeasured = [f"{name}: not measured" for name in MINIMUM if name not in packages]
    return unmeasured + [
        f"{name}: {kind} coverage is {percent:.2f} %, below {minimum:g} %"
        for name, counts, minimum in rows
        for kind, percent in (("statement", counts.statement_percent), ("branch", counts.branch_percent))
        if percent < minimum
    ]


def total(packages: Mapping[str, Coverage]) -> Coverage:
    result = Coverage()
    for counts in packages.values():
        result = result.plus(counts)
    return result


def table(packages: Mapping[str, Coverage]) -> str:
    rows = [*packages.items(), ("all", total(packages))]
    lines = [f"{'package':<14} statements   branches"]
    lines += [f"{name:<14} {one.statement_percent:8.2f} % {one.branch_percent:8.2f} %" for name, one in rows]
    return "\n".join(lines)


def missing(report: Mapping[str, Any]) -> list[str]:
    """Returns what is not covered, a line for each file."""
    return [
        f"  {name}: lines {file['missing_lines']} branches {file['missing_branches']}"
        for name, file in report["files"].items()
        if file["missing_lines"] or file["missing_branches"]
    ]


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status. Raises OSError, ValueError for a report that cannot be read."""
    report = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    packages = by_package(report)
    print(table(packages))
    found = problems(packages)
    if found:
        print("\n".join(["not covered:", *missing(report), *found]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
