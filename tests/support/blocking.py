"""Notes each call of the package that blocks the event loop: files, SQLite, sockets, locks, sleep."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from blockbuster import BlockBuster, BlockBusterFunction

ROOT = Path(__file__).parents[2]
PACKAGE = str(ROOT / "gateway") + "/"
TESTS = str(ROOT / "tests") + "/"

ALSO = ("builtins.open", "io.open", "os.open", "os.fsync", "fcntl.flock", "sqlite3.connect")
"""Blocking calls that blockbuster does not know."""


class Allowed(NamedTuple):
    """A function that may block the loop, whatever it calls in turn, and why it may."""

    file: str
    function: str
    reason: str


ALLOWED = (
    Allowed("/logging/__init__.py", "handle", "log lines go to stderr, for a person or a process that reads them"),
    Allowed("gateway/limits/stores/sqlite_transactions.py", "run_on_loop", "decision 018: tried without waiting"),
    Allowed(
        "gateway/limits/stores/sqlite.py", "read", "decision 018: reading SQLite's write-ahead log waits for nobody"
    ),
    Allowed("/coverage/collector.py", "lock_data", "measures coverage; the lock is never held for long"),
    Allowed("gateway/limits/stores/sqlite_transactions.py", "close", "joins a thread that has nothing left to do"),
)


class BlockingCalls:
    """The calls that were noted; each is the name of the function and the stack below which it was called."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def note(self, name: str, function: BlockBusterFunction) -> None:
        """Notes the call that is being made, if the package makes it on the event loop and is not allowed to."""
        frame: FrameType | None = sys._getframe(1)
        stack = list(_frames(frame))
        if _is_call_of_package(stack) and not _is_allowed(stack, function):
            lines = [f"{f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_name}" for f in stack[:12]]
            self.found.append(f"{name} blocks the event loop\n  " + "\n  ".join(lines))


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_call_of_package(stack: list[FrameType]) -> bool:
    """Tells a coroutine or a callback of the package from a test that calls a blocking function itself."""
    called = False
    for frame in stack:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            if frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
                return True
            called = True
        elif name.startswith(TESTS) and name != __file__:
            return False
    return called


def _is_allowed(stack: list[FrameType], function: BlockBusterFunction) -> bool:
    """Heeds what blockbuster itself knows to be harmless, too, as the lock with which a thread is started."""
    allowed = [*function.can_block_functions, *((one.file, {one.function}) for one in ALLOWED)]
    return any(
        frame.f_code.co_name in functions and frame.f_code.co_filename.endswith(file)
        for frame in stack
        for file, functions in allowed
    )


@contextmanager
def noting_blocking_calls() -> Iterator[BlockingCalls]:
    """Patches the blocking functions of Python for the whole process. A call is noted and then made."""
    calls = BlockingCalls()
    blockbuster = BlockBuster()
    for name in ALSO:
        blockbuster.functions[name] = BlockBusterFunction(None, name)
    for name, function in blockbuster.functions.items():
        function.can_block_predicate = _noting(calls, name, function)
    blockbuster.activate()
    try:
        yield calls
    finally:
        blockbuster.deactivate()


def _noting(calls: BlockingCalls, name: str, function: BlockBusterFunction) -> Callable[..., bool]:
    does_not_block = function.can_block_predicate

    def note(*args: Any, **kwargs: Any) -> bool:
        if not does_not_block(*args, **kwargs):
            calls.note(name, function)
        return True

    return note
