"""The figures of a small checkout, counted by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import structure

ROOT = Path(__file__).parents[2]
A = '''"""A."""

from typing import TYPE_CHECKING

from gateway.sub import b

if TYPE_CHECKING:
    from gateway.app import App


def told(app: "App") -> None:
    """Does a thing. Raises ValueError."""
    raise ValueError(b)


def untold(first: int, second: int) -> None:
    try:
        told(first)
    except ValueError:
        raise KeyError from None


def passes_on() -> None:
    try:
        told(1)
    except ValueError:
        raise


def _private() -> None:
    raise ValueError
'''
FILES = {
    "gateway/__init__.py": "",
    "gateway/app.py": "from gateway import a\nfrom gateway.sub.b import B\n",
    "gateway/a.py": A,
    "gateway/sub/__init__.py": "",
    "gateway/sub/b.py": "B = 1\n",
    "tests/sub/test_b.py": f"def test_b(app):\n    app.{'_b'}.run(self.{'_c'}, row.{'_replace'}())\n",
    "tests/test_app.py": "\n" * 401,
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "s" * 73], check=True)
    return tmp_path


def test_the_figures_of_a_small_checkout(checkout: Path) -> None:
    assert structure.measure(checkout) == {
        "modules": 5,
        "lines": sum(text.count("\n") for name, text in FILES.items() if name.startswith("gateway/")),
        "modules at the top of the package": 3,
        "lines at the top of the package": A.count("\n") + 2,
        "file length, median": 1,
        "file length, 90th percentile": A.count("\n"),
        "file length, max": A.count("\n"),
        "longest import chain, run time": 3,
        "longest import chain, TYPE_CHECKING counted": 3,
        "import circles, run time": 0,
        "import circles, TYPE_CHECKING counted": 1,
        "modules in the largest circle": 2,
        "fan-out of app": 2,
        "functions": 4,
        "function length, median": 4,
        "function length, 90th percentile": 5,
        "function length, 99th percentile": 5,
        "function length, max": 5,
        "parameters, max": 2,
        "public functions that raise": 2,
        "public functions that raise and say so": 1,
        "modules but __init__": 3,
        "modules with a test file of their own": 2,
        "places where tests touch private names": 1,
        "test files over 400 lines": 1,
        "commits": 1,
        "commits with a subject over 72 characters": 1,
        "longest subject of a commit": 73,
    }


def test_the_command_prints_a_table_or_json(checkout: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "structure.py"), str(checkout)]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    as_json = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(as_json) == structure.measure(checkout)
    assert len(table.splitlines()) == len(json.loads(as_json))


def test_a_chain_takes_a_circle_as_a_whole() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set[str](), "e": {"d"}}
    assert structure.circles(graph) == [["b", "c"]]
    assert structure.longest_chain(graph) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (90, 9), (99, 10), (100, 10)])
def test_a_percentile_is_one_of_the_values(percent: int, value: int) -> None:
    assert structure.percentile(range(1, 11), percent) == value
