"""Changes the code with mutmut and reports the changes that no test notices, but for those that are known to be equivalent.

``python scripts/mutate.py [PATH …]``: files or folders of the package; without any, all that ``[tool.mutmut]`` names. A change
that survives is explained in ``tests/mutation/equivalent.toml``, or a test is missing.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = ROOT / "tests" / "mutation" / "equivalent.toml"
PACKAGES = ("gateway/auth", "gateway/tokens", "gateway/limits", "gateway/usage", "gateway/audit")
MUTMUT = (sys.executable, "-m", "mutmut")
PROCESSES = "2"
_NUMBER = re.compile(r"__mutmut_\d+$")


class Mutant(NamedTuple):
    """A change: the function, and the lines as they were and as they became, without indentation."""

    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.function}\n  - {self.before}\n  + {self.after}"


def pattern(path: str) -> str:
    """Returns the names of the mutants of a file or a folder as mutmut's pattern."""
    return ".".join(Path(path).with_suffix("").parts) + ".*"


def survivors(results: str) -> Iterator[str]:
    """Yields names out of what ``mutmut results`` prints. A change that no test reaches has survived as well."""
    for line in results.splitlines():
        name, _, status = line.strip().rpartition(": ")
        if status in ("survived", "no tests"):
            yield name


def parse_diff(name: str, diff: str) -> Mutant:
    """Reads what ``mutmut show`` prints."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "#", "@@"))]
    before, after = ("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Mutant(_NUMBER.sub("", name), before, after)


def read_explained(path: Path) -> dict[Mutant, str]:
    """Returns the reason of each known survivor. Raises OSError, ValueError, KeyError for a file that is not as described."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])
    return {Mutant(one["function"], one["before"], one["after"]): one["reason"] for one in entries}


def run(paths: Sequence[str]) -> list[Mutant]:
    """Returns the mutants below ``paths`` that survive. Raises CalledProcessError when mutmut itself fails."""
    patterns = [pattern(path) for path in paths]
    subprocess.run([*MUTMUT, "run", "--max-children", PROCESSES, *patterns], cwd=ROOT, check=True)
    prefixes = tuple(one.removesuffix("*") for one in patterns)
    names = [name for name in survivors(_output("results")) if name.startswith(prefixes)]
    return [parse_diff(name, _output("show", name)) for name in names]


def _output(*arguments: str) -> str:
    return subprocess.run([*MUTMUT, *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def main(paths: Sequence[str]) -> int:
    """Returns the exit status: 1 if a change survives that nobody has explained."""
    found, explained = run(paths or PACKAGES), read_explained(EXPLAINED)
    unexplained = [mutant for mutant in found if mutant not in explained]
    for mutant in unexplained:
        print(mutant)
    print(f"{len(found)} changes survive, {len(unexplained)} of them unexplained")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
