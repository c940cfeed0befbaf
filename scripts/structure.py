"""Measures the structure of a checkout: modules, imports, sizes, docstrings, tests, commits. Imports nothing of the package.

``python scripts/structure.py [CHECKOUT] [--json]``. ``tests/test_architecture.py`` uses the same functions.
"""

import argparse
import ast
import json
import re
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

PACKAGE = "gateway"
ROOT = Path(__file__).resolve().parents[1]
LONG_TEST_FILE = 400
LONG_SUBJECT = 72
PRIVATE_NAME = re.compile(
    r"\b(?!(?:self|cls|os|sys)\b)[a-zA-Z]\w*\._(?!(?:replace|fields|asdict|make|field_defaults)\b)[a-z]\w*"
)
"""A private attribute of something else. ``os._exit``, ``sys._getframe`` and the methods of named tuples are public."""
_RAISES = re.compile(r"\b[Rr]aises?\b")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Graph = Mapping[str, Set[str]]
Figures = dict[str, int | float | str]


class Module(NamedTuple):
    """A source file; ``lines`` is the number of its lines."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


def read_modules(root: Path) -> dict[str, Module]:
    """Returns the modules of the package below ``root`` by their dotted names. Raises SyntaxError, OSError."""
    modules = (read_module(path, root) for path in python_files(root / PACKAGE))
    return {module.name: module for module in modules}


def read_module(path: Path, root: Path) -> Module:
    """Returns one module; its name is its path below ``root``. Raises SyntaxError, OSError."""
    text = path.read_text(encoding="utf-8")
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(text), len(text.splitlines()))


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


# --- imports


def imported_names(tree: ast.Module, *, typing: bool) -> Iterator[tuple[str, str]]:
    """Yields pairs of a module and a name out of it (empty for ``import module``), imports inside functions included.

    ``typing`` says whether imports under ``if TYPE_CHECKING`` count.
    """
    skipped = set() if typing else _typing_only(tree)
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def _typing_only(tree: ast.Module) -> set[int]:
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and _is_type_checking(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def import_graph(modules: Mapping[str, Module], *, typing: bool) -> dict[str, set[str]]:
    """Returns which modules of the package each module imports; the import of the top package itself is left out."""
    graph: dict[str, set[str]] = {}
    for name, module in modules.items():
        pairs = imported_names(module.tree, typing=typing)
        found = {full if (full := f"{source}.{item}") in modules else source for source, item in pairs}
        graph[name] = {other for other in found if other in modules} - {name, PACKAGE}
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Returns the groups of nodes that all reach each other, largest first."""
    reachable = {node: _reachable(graph, node) for node in graph}
    groups = {tuple(sorted(other for other in reachable[node] if node in reachable[other])) for node in graph}
    return sorted((list(group) for group in groups if group), key=len, reverse=True)


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph[node]
    return found


def longest_chain(graph: Graph) -> list[str]:
    """Returns the longest way along imports. A circle counts with all of its modules, in alphabetical order."""
    groups = {node: tuple(group) for group in circles(graph) for node in group}
    chains: dict[str, list[str]] = {}

    def chain_from(node: str) -> list[str]:
        if node not in chains:
            group = groups.get(node, (node,))
            onward = {other for member in group for other in graph[member]} - set(group)
            rest = max((chain_from(other) for other in sorted(onward)), key=len, default=[])
            chains.update({member: [*group, *rest] for member in group})
        return chains[node]

    return max((chain_from(node) for node in sorted(graph)), key=len, default=[])


# --- functions


def functions(tree: ast.Module) -> Iterator[FunctionNode]:
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode):
            yield node


def function_lines(node: FunctionNode) -> int:
    """Returns the number of lines without decorators."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def parameter_count(node: FunctionNode) -> int:
    """Returns the number of parameters with names of their own; ``self`` is one of them."""
    return len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs)


def public_functions(tree: ast.AST) -> Iterator[FunctionNode]:
    """Yields functions of a module and methods of its public classes whose names do not begin with an underscore."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, FunctionNode):
            if not node.name.startswith("_"):
                yield node
        elif not isinstance(node, ast.ClassDef) or not node.name.startswith("_"):
            yield from public_functions(node)


def raises_directly(node: FunctionNode) -> bool:
    """Tells whether a ``raise`` with an exception stands in the function. A bare ``raise`` only passes one on."""
    return any(isinstance(inner, ast.Raise) and inner.exc is not None for inner in ast.walk(node))


def says_raises(node: FunctionNode) -> bool:
    return _RAISES.search(ast.get_docstring(node) or "") is not None


# --- tests and commits


def test_path(module: Module, root: Path) -> Path:
    """Returns where the tests of a module belong: ``gateway/a/b.py`` has ``tests/a/test_b.py``."""
    inner = module.path.relative_to(root / PACKAGE)
    return root / "tests" / inner.with_name(f"test_{inner.stem.strip('_')}.py")


def untested_modules(modules: Mapping[str, Module], root: Path) -> list[str]:
    """Returns the modules without a test file of their own. ``__init__`` needs none."""
    found = [module for module in modules.values() if not module.is_package]
    return [module.name for module in found if not test_path(module, root).exists()]


def private_names(text: str) -> list[tuple[int, str]]:
    """Returns the private names of other objects in ``text``, with the numbers of their lines."""
    lines = enumerate(text.splitlines(), 1)
    return [(number, name) for number, line in lines for name in PRIVATE_NAME.findall(line)]


def subjects(root: Path) -> list[str]:
    """Returns the subjects of all commits. Raises CalledProcessError where ``root`` is no repository."""
    command = ["git", "-C", str(root), "log", "--format=%s"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


# --- figures


def measure(root: Path) -> Figures:
    """Returns every figure by its name. Raises SyntaxError, OSError, CalledProcessError."""
    modules = read_modules(root)
    return {**_sizes(modules), **_imports(modules), **_functions(modules), **_tests(modules, root), **_commits(root)}


def _sizes(modules: Mapping[str, Module]) -> Figures:
    lines = [module.lines for module in modules.values()]
    top = [module.lines for module in modules.values() if module.path.parent.name == PACKAGE]
    return {
        "modules": len(modules),
        "lines": sum(lines),
        "modules at the top of the package": len(top),
        "lines at the top of the package": sum(top),
        "file length, median": statistics.median(lines),
        "file length, 90th percentile": percentile(lines, 90),
        "file length, max": max(lines),
    }


def _imports(modules: Mapping[str, Module]) -> Figures:
    at_run_time, with_typing = (import_graph(modules, typing=typing) for typing in (False, True))
    found = circles(with_typing)
    return {
        "longest import chain, run time": len(longest_chain(at_run_time)),
        "longest import chain, TYPE_CHECKING counted": len(longest_chain(with_typing)),
        "import circles, run time": len(circles(at_run_time)),
        "import circles, TYPE_CHECKING counted": len(found),
        "modules in the largest circle": max(map(len, found), default=0),
        "fan-out of app": len(with_typing[f"{PACKAGE}.app"]),
    }


def _functions(modules: Mapping[str, Module]) -> Figures:
    found = [node for module in modules.values() for node in functions(module.tree)]
    lines = [function_lines(node) for node in found]
    public = [node for module in modules.values() for node in public_functions(module.tree)]
    raising = [node for node in public if raises_directly(node)]
    return {
        "functions": len(found),
        "function length, median": statistics.median(lines),
        "function length, 90th percentile": percentile(lines, 90),
        "function length, 99th percentile": percentile(lines, 99),
        "function length, max": max(lines),
        "parameters, max": max(map(parameter_count, found)),
        "public functions that raise": len(raising),
        "public functions that raise and say so": sum(map(says_raises, raising)),
    }


def _tests(modules: Mapping[str, Module], root: Path) -> Figures:
    texts = [path.read_text(encoding="utf-8") for path in python_files(root / "tests")]
    count = sum(not module.is_package for module in modules.values())
    return {
        "modules but __init__": count,
        "modules with a test file of their own": count - len(untested_modules(modules, root)),
        "places where tests touch private names": sum(len(private_names(text)) for text in texts),
        f"test files over {LONG_TEST_FILE} lines": sum(len(text.splitlines()) > LONG_TEST_FILE for text in texts),
    }


def _commits(root: Path) -> Figures:
    lengths = [len(subject) for subject in subjects(root)]
    return {
        "commits": len(lengths),
        f"commits with a subject over {LONG_SUBJECT} characters": sum(length > LONG_SUBJECT for length in lengths),
        "longest subject of a commit": max(lengths),
    }


def percentile(values: Sequence[int], percent: int) -> int:
    """Returns the smallest value that at least ``percent`` of all values do not exceed."""
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description="Measure the structure of a checkout.")
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = measure(arguments.checkout.resolve())
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    width = max(map(len, figures))
    for name, figure in figures.items():
        print(f"{name:<{width}}  {figure:>7}")


if __name__ == "__main__":
    main()
