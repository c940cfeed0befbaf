"""Rules of the architecture, checked against the code. Each message says why the rule is there."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from scripts import structure
from tests.support import vocabulary

ROOT = Path(__file__).parents[1]
MODULES = structure.read_modules(ROOT)
AT_RUN_TIME = structure.import_graph(MODULES, typing=False)
GRAPH = structure.import_graph(MODULES, typing=True)
TEST_FILES = structure.python_files(ROOT / "tests")

MAX_FILE_LINES = 300
MAX_TEST_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6
MAX_IMPORT_CHAIN = 12

MAY_IMPORT_SETTINGS = ("app", "server", "cli")
MAY_CATCH_EVERYTHING = ("http.pipeline", "core.tasks", "server.http1_connection")
AIOHTTP_SERVER = re.compile(
    r"aiohttp\.(web|web_\w+|http_parser|http_writer|abc\.(?!AbstractResolver$|ResolveResult$)\w+|pytest_plugin)(\.|$)"
)
CLIENT_LIBRARIES = re.compile(r"(httptools|brotli|aiohappyeyeballs|backports\.zstd)(\.|$)")
AIOHTTP_CLIENT = re.compile(r"aiohttp\.(client\w*|connector|Client\w+|TCPConnector|request|cookiejar)(\.|$)")


def read_rows(text: str) -> list[list[str]]:
    """Returns the packages of each row of the block, top row first: a label, and after two spaces the names."""
    block = re.search(r"```packages\n(.*?)```", text, re.DOTALL)
    assert block, "docs/architecture.md needs its ```packages block: a newcomer learns the layers from it"
    return [re.split(r"\s{2,}", line.strip())[1:] for line in block[1].splitlines()]


ROWS = read_rows((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
ROW_OF = {name: number for number, row in enumerate(ROWS) for name in row}


def inner_name(module: str) -> str:
    return module.removeprefix("gateway").removeprefix(".")


def package_of(module: str) -> str:
    """Returns the entry of the block that a module belongs to: the longest one. Empty for a module that has none."""
    name = inner_name(module)
    while name and name not in ROW_OF:
        name = name.rpartition(".")[0]
    return name


def is_in(module: str, packages: Iterable[str]) -> bool:
    name = inner_name(module)
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def package_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {name: set() for name in ROW_OF}
    for module, others in GRAPH.items():
        if package := package_of(module):
            graph[package] |= {found for other in others if (found := package_of(other)) and found != package}
    return graph


def violations(check: Callable[[ast.AST], bool], allowed: Iterable[str] = ()) -> list[str]:
    """Returns the places of all nodes that fail the check."""
    return [
        f"{name}:{node.lineno}"
        for name, module in MODULES.items()
        if not is_in(name, allowed)
        for node in ast.walk(module.tree)
        if check(node)
    ]


def all_imports(name: str) -> Iterator[str]:
    """Yields dotted names: the module, what is imported out of it, and what is used of aiohttp's top."""
    for source, item in structure.imported_names(MODULES[name].tree, typing=True):
        yield source
        if item:
            yield f"{source}.{item}"
    for node in ast.walk(MODULES[name].tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "aiohttp":
            yield f"aiohttp.{node.attr}"


def test_the_map_shows_every_package_and_nothing_else() -> None:
    packages = {inner_name(name) for name, module in MODULES.items() if module.is_package} - {""}
    hidden = packages - set(ROW_OF)
    assert not hidden, f"a newcomer does not find packages that docs/architecture.md does not show: {hidden}"
    missing = [name for name in ROW_OF if f"gateway.{name}" not in MODULES]
    assert not missing, f"docs/architecture.md shows {missing}, which do not exist"
    unplaced = [name for name in MODULES if name != "gateway" and not package_of(name)]
    assert not unplaced, f"modules outside of every package have no layer, so no rule protects them: {unplaced}"


def test_imports_never_point_upwards() -> None:
    wrong = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in sorted(others)
        if (here := package_of(module)) and (there := package_of(other)) and ROW_OF[there] < ROW_OF[here]
    ]
    assert not wrong, f"a lower layer that knows a higher one cannot be read or tested without it: {wrong}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = structure.circles(GRAPH)
    assert not found, f"modules in a circle can only be understood, tested and changed together: {found}"


def test_no_packages_import_each_other_in_a_circle() -> None:
    found = structure.circles(package_graph())
    assert not found, f"packages in a circle are one package with two names: {found}"


def test_the_longest_import_chain_is_short() -> None:
    chain = structure.longest_chain(GRAPH)
    assert len(chain) <= MAX_IMPORT_CHAIN, f"a change at the end of a long chain can break all before it: {chain}"


def test_the_top_of_the_package_has_three_modules() -> None:
    top = {path.stem for path in (ROOT / "gateway").glob("*.py")}
    assert top == {"__init__", "__main__", "app"}, (
        "a module beside the packages has no layer and is not looked for there"
    )


@pytest.mark.parametrize(
    ("names", "packages", "why"),
    [
        (AIOHTTP_SERVER, ("server",), "another server must be able to stand beside aiohttp's: use http.request"),
        (AIOHTTP_CLIENT, ("providers.transport",), "a second client has its own time-outs and leaks credentials"),
        (re.compile(r"aiohttp(\.|$)"), ("server", "providers.transport"), "only the adapters know aiohttp"),
        (
            CLIENT_LIBRARIES,
            ("providers.transport",),
            "a second client has its own time-outs and its own rules of framing",
        ),
        (re.compile(r"aiofiles(\.|$)"), ("storage.files",), "its files close in the pool of the event loop"),
        (re.compile(r"gateway\.config\.settings(\.|$)"), MAY_IMPORT_SETTINGS, "pass the values that a module needs"),
    ],
    ids=["aiohttp server", "aiohttp client", "aiohttp", "own client", "aiofiles", "settings"],
)
def test_a_library_is_imported_in_one_place(names: re.Pattern[str], packages: tuple[str, ...], why: str) -> None:
    allowed = (*packages, "config.settings")
    wrong = sorted({name for name in MODULES if not is_in(name, allowed) if any(map(names.match, all_imports(name)))})
    assert not wrong, f"{names.pattern} belongs to {packages}: {why}; found in {wrong}"


def test_the_registry_imports_no_provider() -> None:
    found = GRAPH["gateway.providers.registry"]
    assert found <= {"gateway.providers.base"}, (
        f"built-in providers are found as plug-ins are, or plug-ins break: {found}"
    )


def test_the_supervisor_imports_nothing_of_the_package() -> None:
    found = GRAPH["gateway.server.supervisor"]
    assert not found, f"what restarts a broken gateway must not break with it: {found}"


def test_the_token_commands_start_without_aiohttp() -> None:
    waiting, found = [name for name in MODULES if is_in(name, ["cli.tokens"])], set[str]()
    assert waiting, "gateway.cli.tokens does not exist"
    while waiting:
        found.add(name := waiting.pop())
        waiting += AT_RUN_TIME[name] - found
    wrong = sorted(name for name in found if any(source.startswith("aiohttp") for source in all_imports(name)))
    assert not wrong, f"a command that somebody types starts at once, and aiohttp alone takes longer than it: {wrong}"


@pytest.mark.parametrize(
    ("path", "limit"),
    [(module.path, MAX_FILE_LINES) for module in MODULES.values()]
    + [(path, MAX_TEST_FILE_LINES) for path in TEST_FILES],
    ids=lambda value: str(value.relative_to(ROOT)) if isinstance(value, Path) else "",
)
def test_a_file_is_short(path: Path, limit: int) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines: a file this long has more than one purpose"


def test_functions_are_short_and_have_few_parameters() -> None:
    wrong = [
        f"{name}.{node.name}: {structure.function_lines(node)} lines, {structure.parameter_count(node)} parameters"
        for name, module in MODULES.items()
        for node in structure.functions(module.tree)
        if structure.function_lines(node) > MAX_FUNCTION_LINES or structure.parameter_count(node) > MAX_PARAMETERS
    ]
    assert not wrong, f"a function does one thing, and needs little for it: {wrong}"


def test_nothing_is_global() -> None:
    wrong = violations(lambda node: isinstance(node, ast.Global))
    assert not wrong, f"state belongs to an object that somebody creates and passes on: {wrong}"


def test_every_module_has_a_docstring() -> None:
    wrong = [name for name, module in MODULES.items() if not ast.get_docstring(module.tree)]
    assert not wrong, f"the first line of a module says whether to read on: {wrong}"


def test_public_functions_that_raise_say_so() -> None:
    wrong = [
        f"{name}.{node.name}:{node.lineno}"
        for name, module in MODULES.items()
        for node in structure.public_functions(module.tree)
        if structure.raises_directly(node) and not structure.says_raises(node)
    ]
    assert not wrong, f"a signature cannot say which errors to expect, so the docstring does (`Raises X.`): {wrong}"


def test_only_the_outermost_handlers_catch_everything() -> None:
    wrong = violations(_is_broad, MAY_CATCH_EVERYTHING)
    assert not wrong, f"a broad except that does not raise again hides the fault that it catches: {wrong}"


def test_nothing_uses_the_pool_of_the_event_loop() -> None:
    wrong = violations(_uses_default_pool)
    assert not wrong, (
        f"what security depends on would wait there behind whatever else blocks: use core.threads; {wrong}"
    )


def _uses_default_pool(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    name = ast.unparse(node.func)
    is_default = node.func.attr == "run_in_executor" and ast.unparse(node.args[0]) == "None"
    return is_default or name == "asyncio.to_thread"


def _is_broad(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    is_broad = any(kind is None or getattr(kind, "id", "") in ("Exception", "BaseException") for kind in kinds)
    return is_broad and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))


PROSE = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
CODE = [path for path in (*(ROOT / "gateway").rglob("*.py"), *TEST_FILES) if "vocabulary" not in path.name]


@pytest.mark.parametrize("path", sorted([*PROSE, *CODE]), ids=lambda path: str(path.relative_to(ROOT)))
def test_words_are_those_of_the_field(path: Path) -> None:
    find = vocabulary.find_in_code if path.suffix == ".py" else vocabulary.find_in_text
    name = vocabulary.find_in_text(path.stem.replace("_", " "))
    found = [*name, *find(path.read_text(encoding="utf-8"))]
    advice = [f"line {line}: {word!r}, say {instead}" for line, word, instead in found]
    assert not found, f"whoever knows other gateways must find their words here. {'; '.join(advice)}"


def test_module_names_tell_what_is_inside() -> None:
    names = vocabulary.MODULE_NAMES
    wrong = [f"{name}: say {names[last]}" for name in MODULES if (last := name.rpartition(".")[2]) in names]
    assert not wrong, f"a reader chooses the file by its name alone: {wrong}"


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_touch_no_private_names(path: Path) -> None:
    found = structure.private_names(path.read_text(encoding="utf-8"))
    assert not found, f"a test of private names fails when the code is changed for the better: {found}"


def test_every_module_has_a_test_file_of_its_name() -> None:
    wrong = structure.untested_modules(MODULES, ROOT)
    assert not wrong, f"a failure has to name the module at fault (gateway/a/b.py has tests/a/test_b.py): {wrong}"
