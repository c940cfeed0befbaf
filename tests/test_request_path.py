"""How far a request travels through the package. A path of few files and few moves can be read and kept in mind."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support.tracing import Trace, trace_requests, tracing

MAX_FILES_OF_LIMITED_CHAT = 43
MAX_MOVES_OF_LIMITED_CHAT = 157
MAX_FILES_OF_TOKEN_CREATION = 48
"""What holds today, so that it grows no further. docs/testing.md names the aims, which are lower."""


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    return asyncio.run(trace_requests(tmp_path_factory.mktemp("traced")))


def test_a_limited_chat_visits_few_files(traces: dict[str, Trace]) -> None:
    files = traces["limited chat"].files
    assert len(files) <= MAX_FILES_OF_LIMITED_CHAT, (
        f"whoever looks for a fault in a chat request has to read {len(files)} files: {sorted(files)}"
    )


def test_a_limited_chat_moves_rarely_between_files(traces: dict[str, Trace]) -> None:
    trace = traces["limited chat"]
    assert trace.moves <= MAX_MOVES_OF_LIMITED_CHAT, (
        f"whoever follows a chat request changes the file {trace.moves} times: {' '.join(trace.visits)}"
    )


def test_a_token_creation_visits_few_files(traces: dict[str, Trace]) -> None:
    files = traces["token creation"].files
    assert len(files) <= MAX_FILES_OF_TOKEN_CREATION, (
        f"whoever looks for a fault in the creation of a token has to read {len(files)} files: {sorted(files)}"
    )


def test_traces_show_what_the_requests_differ_in(traces: dict[str, Trace]) -> None:
    """Limits add files of their package, a stream adds calls for its events."""
    added = traces["limited chat"].files - traces["chat"].files
    assert any(file.startswith("limits/") for file in added), added
    assert traces["limited chat, streamed"].calls > traces["limited chat"].calls


FIRST = """
import asyncio
from traced_package import second

async def main():
    second.step()
    await asyncio.to_thread(second.step)
    await second.wait()
"""
SECOND = """
import asyncio

def step():
    return inner()

def inner():
    return 1

async def wait():
    await asyncio.sleep(0)
"""


async def test_a_trace_counts_calls_returns_and_the_work_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both calls of ``step`` move there and back. ``main`` continues twice after it has waited, ``wait`` continues once."""
    package = tmp_path / "traced_package"
    package.mkdir()
    for name, text in (("__init__", ""), ("first", FIRST), ("second", SECOND)):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    from traced_package import first  # type: ignore[import-not-found]

    try:
        with tracing(package) as trace:
            await asyncio.create_task(first.main())
    finally:
        for module in ("traced_package", "traced_package.first", "traced_package.second"):
            del sys.modules[module]
    assert trace.files == {"first.py", "second.py"}
    assert {code.co_name for code in trace.functions} == {"main", "step", "inner", "wait"}
    assert (trace.calls, trace.depth) == (1 + 2 + 2 + 1 + 3, 2)
    assert trace.visits == ["first.py", "second.py"] * 4 + ["first.py"]
    assert trace.moves == 10


async def test_a_trace_leaves_out_tasks_that_ran_before(tmp_path: Path) -> None:
    go, package = asyncio.Event(), Path(__file__).parent

    async def older() -> None:
        await go.wait()
        started.append(asyncio.current_task())

    started: list[object] = []
    task = asyncio.create_task(older())
    await asyncio.sleep(0)
    with tracing(package) as trace:
        go.set()
        await task
    assert started == [task]
    assert not trace.calls
