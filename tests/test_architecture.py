"""The house rules, held against the code. Each message says why the rule is there."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gateway"
FILES = sorted(PACKAGE.rglob("*.py"))

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def _imports(tree: ast.Module) -> Iterator[str]:
    """Every module imported at run time, hidden imports inside functions included."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (_imported(node.module or "", alias.name) for alias in node.names)


def _imported(module: str, name: str) -> str:
    """``from gateway.http import paths`` imports a module, ``from gateway.core.errors import NotFound`` a name out of one."""
    return f"{module}.{name}" if f"{module}.{name}" in TREES else module


GRAPH = {
    name: {found for found in _imports(tree) if found in TREES and found not in (name, "gateway")}
    for name, tree in TREES.items()
}


def _floors() -> dict[str, int]:
    """Rooms and their floors, out of the map."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    match = re.search(r"```rooms\n(.*?)```", text, re.DOTALL)
    assert match, "docs/architecture.md has lost its map"
    floors: dict[str, int] = {}
    floor = -1
    for line in match[1].splitlines():
        if line[0].isdigit():
            floor = int(line[0])
        floors |= dict.fromkeys(line[15:].split(), floor)
    return floors


FLOORS = _floors()


def _room(module: str) -> str | None:
    name = module.removeprefix("gateway.")
    return next((room for room in (name, name.partition(".")[0]) if room in FLOORS), None)


def test_every_module_is_on_the_map_and_the_map_has_no_other() -> None:
    packages = {"gateway"} | {name for name in TREES if any(other.startswith(f"{name}.") for other in TREES)}
    homeless = [name for name in TREES if _room(name) is None and name not in packages]
    assert not homeless, f"docs/architecture.md does not show {homeless}: a newcomer would not find them"
    missing = [room for room in FLOORS if f"gateway.{room}" not in TREES]
    assert not missing, f"docs/architecture.md shows {missing}, which do not exist"


def test_imports_never_point_upwards() -> None:
    wrong = [
        f"{name} (floor {FLOORS[here]}) imports {other} (floor {FLOORS[there]})"
        for name, others in GRAPH.items()
        if (here := _room(name))
        for other in others
        if (there := _room(other)) and FLOORS[there] > FLOORS[here]
    ]
    assert not wrong, f"a lower floor must not know a higher one, or neither can be read alone: {wrong}"


def test_there_is_no_import_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"modules in a circle can only be understood, tested and changed together: {error.args[1]}")


ALLOWED_IMPORTERS = {
    "gateway.config.settings": ("gateway.cli.serve", "gateway.app", "gateway.server.worker", "gateway.cli.tokens"),
    "aiohttp.web": ("gateway.http", "gateway.server"),
    "aiohttp.web_protocol": ("gateway.http", "gateway.server"),
    "aiohttp": ("gateway.http", "gateway.server", "gateway.providers.transport"),
}


@pytest.mark.parametrize("module", ALLOWED_IMPORTERS)
def test_some_modules_are_for_some_rooms_only(module: str) -> None:
    def allowed(name: str) -> bool:
        return any(name == room or name.startswith(f"{room}.") for room in ALLOWED_IMPORTERS[module])

    wrong = [name for name, tree in TREES.items() if module in _imports(tree) and not allowed(name)]
    assert not wrong, f"{module} belongs to {ALLOWED_IMPORTERS[module]}; pass values instead of importing it in {wrong}"


def test_only_the_transport_opens_client_sessions() -> None:
    wrong = [
        path.name
        for path in FILES
        if "ClientSession" in path.read_text(encoding="utf-8") and "transport" not in path.parts
    ]
    assert not wrong, (
        f"a second client would have its own time-outs, and leak the credentials the first one holds back: {wrong}"
    )


def test_the_registry_and_the_supervisor_stay_strangers_to_what_they_start() -> None:
    assert not [other for other in GRAPH["gateway.providers.registry"] if other != "gateway.providers.base"]
    assert not GRAPH["gateway.server.supervisor"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_fits_into_a_head(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines: this room has more than one purpose"


def test_functions_are_short_and_take_little() -> None:
    wrong = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                count = len(node.args.args) + len(node.args.kwonlyargs) + len(node.args.posonlyargs)
                if length > MAX_FUNCTION_LINES or count > MAX_PARAMETERS:
                    wrong.append(f"{name}.{node.name}: {length} lines, {count} parameters")
    assert not wrong, f"a function has one verb, and few things to do it with: {wrong}"


def test_nothing_is_global() -> None:
    wrong = [name for name, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.Global)]
    assert not wrong, f"state belongs to an object that somebody makes and passes on: {wrong}"


def test_every_module_says_what_it_is_for() -> None:
    silent = [name for name, tree in TREES.items() if not ast.get_docstring(tree)]
    assert not silent, f"the first line of a room is its sign: {silent}"


def test_broad_excepts_stand_only_where_the_line_ends() -> None:
    wrong = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            is_guard = name in ("gateway.http.pipeline", "gateway.core.tasks")
            if isinstance(node, ast.ExceptHandler) and not is_guard and _is_broad(node):
                wrong.append(f"{name}:{node.lineno}")
    assert not wrong, f"a broad except hides the bug it catches; here it does not raise again: {wrong}"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    """Catches everything, and does not hand it on."""
    kind = getattr(handler.type, "id", None) if handler.type is not None else "BaseException"
    raises_again = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    return kind in ("Exception", "BaseException") and not raises_again
