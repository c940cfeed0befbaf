"""Runs commands on real tokens: here or in a second process, on disks that fail, killed in the middle of a write.

``python -m tests.campaigns.life commands`` is that second process. It reads one command a line, runs it and answers. It prints
a new secret before anything is written, so that whoever kills the process knows it.
``python -m tests.campaigns.life changes FOLDER`` makes changes until it is killed, and prints each one once it is done.
"""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from gateway.audit import log
from gateway.audit.log import AUDIT_FILE, AuditLog
from gateway.core.clock import SteadyClock
from gateway.core.threads import Threads
from gateway.limits.config import read_limits
from gateway.storage import files
from gateway.tokens import changes, operations, secret
from gateway.tokens.changes import ChangeRefused, TokenSpec
from gateway.tokens.lookup import AmbiguousToken, NoSuchToken
from gateway.tokens.models import Role, TokenRecord, UseKey
from gateway.tokens.store import TokensDamaged
from gateway.tokens.stores import json_format
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore
from gateway.tokens.uses import Use
from tests.support.tokens import BY, Clock

TOKENS = "api_tokens.json"
Command = dict[str, Any]
"""``verb`` and what it takes; times as seconds since the epoch."""


def audit_path(folder: Path) -> Path:
    return folder / "data" / AUDIT_FILE


class CommandRunner:
    """Makes changes as the command line does, and writes uses as another worker does."""

    def __init__(self, folder: Path, wall: Callable[[], float]) -> None:
        self.clock = SteadyClock(wall)
        self._store = JsonTokenStore(
            JsonTokenFile(folder / TOKENS), AuditLog(audit_path(folder), self.clock), self.clock
        )

    def tokens(self) -> tuple[TokenRecord, ...]:
        return asyncio.run(operations.read_or_empty(self._store)).records

    def execute(self, command: Command) -> Command:
        """Returns the new ``id`` and ``secret`` if there are any, or ``refused``, or ``failed``: then nothing has changed."""
        self.clock()
        try:
            return asyncio.run(getattr(self, f"_{command['verb']}")(command)) or {}
        except (ChangeRefused, NoSuchToken, AmbiguousToken) as error:
            return {"refused": type(error).__name__}
        except (OSError, TokensDamaged) as error:
            return {"failed": str(error)}

    async def _create(self, command: Command) -> Command:
        made = await operations.create(self._store, BY, TokenSpec(**spec_fields(command["spec"])))
        return {"id": made.record.id, "secret": made.secret}

    async def _rotate(self, command: Command) -> Command:
        made = await operations.rotate(self._store, BY, command["reference"], command["grace"])
        return {"id": made.record.id, "secret": made.secret}

    async def _revoke(self, command: Command) -> None:
        await operations.revoke(self._store, BY, command["reference"])

    async def _delete(self, command: Command) -> None:
        await operations.delete(self._store, BY, command["reference"])

    async def _patch(self, command: Command) -> None:
        async with self._store.transaction(BY) as tx:
            record = tx.tokens.find_by_id(command["reference"])
            if record is None:
                raise NoSuchToken
            tx.apply(changes.update(tx.tokens, record, spec_fields(command["values"])))

    async def _import(self, command: Command) -> None:
        await operations.import_records(self._store, BY, json_format.decode(command["text"].encode()).tokens)

    async def _use(self, command: Command) -> None:
        uses = {UseKey(command["id"], command["hash"]): Use(command["times"], int(self.clock()), command["address"])}
        await self._store.record_uses(uses)


def spec_fields(values: Command) -> Command:
    """Returns fields of JSON as those of a token."""
    kept = dict(values)
    if "rpm" in kept:
        kept["limits"] = read_limits({"rpm": kept.pop("rpm")})
    if kept.get("models") is not None:
        kept["models"] = tuple(kept["models"])
    if "role" in kept:
        kept["role"] = Role(kept["role"])
    return kept


class FaultInjector:
    """Counts the calls of a write to the disk, and causes its effect at the ``at``-th one. A call that writes is half done by
    then. ``lasting``: all later calls fail, too.
    """

    def __init__(self, at: int, effect: Callable[[], None], *, lasting: bool = False) -> None:
        self._at = at
        self._effect = effect
        self._lasting = lasting
        self._count = 0
        self.triggered: list[str] = []
        """The calls that failed."""

    def passes(self) -> bool:
        self._count += 1
        return self._count < self._at or (self._count > self._at and not self._lasting)

    def trigger(self, name: str) -> None:
        self.triggered.append(name)
        self._effect()

    def call(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        if not self.passes():
            if name.endswith("pwrite"):
                descriptor, data, place = arguments
                real(descriptor, data[: len(data) // 2], place)
            elif name.endswith("close"):
                real(*arguments)
            self.trigger(name)
        return real(*arguments)


def raise_disk_full() -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _FaultyOs:
    """The module ``os``, with faults in what changes a file. ``module`` is the name of the module that calls it."""

    def __init__(self, faults: FaultInjector, module: str) -> None:
        self._faults = faults
        self._module = module

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("chown", "close", "fchmod", "fstat", "fsync", "ftruncate", "open", "pread", "pwrite"):
            return real
        return lambda *arguments, **more: self._faults.call(f"{self._module}.{name}", partial(real, **more), *arguments)


class _FaultyFile:
    """A file that is written."""

    def __init__(self, opening: Any, faults: FaultInjector) -> None:
        self._opening = opening
        self._faults = faults

    async def __aenter__(self) -> "_FaultyFile":
        self._file = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._opening.__aexit__(*error)

    def fileno(self) -> int:
        return int(self._file.fileno())

    async def flush(self) -> None:
        await self._file.flush()

    async def write(self, data: bytes) -> None:
        if not self._faults.passes():
            await self._file.write(data[: len(data) // 2])
            await self._file.flush()
            self._faults.trigger("write")
        await self._file.write(data)


class _FaultyLogFile:
    """The audit log's file, with faults in every call."""

    def __init__(self, opening: Any, faults: FaultInjector) -> None:
        self._opening = opening
        self._faults = faults

    async def __aenter__(self) -> "_FaultyLogFile":
        self._file = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._opening.__aexit__(*error)
        if not self._faults.passes():
            self._faults.trigger("log.close")

    def fileno(self) -> int:
        return int(self._file.fileno())

    async def write(self, data: bytes) -> int:
        if not self._faults.passes():
            await self._file.write(data[: len(data) // 2])
            self._faults.trigger("log.write")
        return int(await self._file.write(data))

    async def read(self, size: int) -> bytes:
        return bytes(await self._call("read", size))

    async def seek(self, *place: int) -> int:
        return int(await self._call("seek", *place))

    async def truncate(self, size: int) -> int:
        return int(await self._call("truncate", size))

    async def _call(self, name: str, *arguments: int) -> Any:
        if not self._faults.passes():
            self._faults.trigger(f"log.{name}")
        return await getattr(self._file, name)(*arguments)


class _FaultyFiles:
    """Opens files as ``files.open_async`` does, with faults in what writes."""

    def __init__(self, faults: FaultInjector) -> None:
        self._faults = faults
        self._open = files.open_async

    def __call__(self, threads: Threads, path: Path, mode: str, *rest: Any, **options: Any) -> Any:
        opening = self._open(threads, path, mode, *rest, **options)
        files_by_mode = {"wb": _FaultyFile, "r+b": _FaultyLogFile}
        return files_by_mode[mode](opening, self._faults) if mode in files_by_mode else opening


@contextmanager
def inject_faults(faults: FaultInjector) -> Iterator[None]:
    """Puts the faults into the two modules that write: the token file's and the audit log's."""
    kept = Path.replace, Path.unlink
    files.os = _FaultyOs(faults, "files")  # type: ignore[assignment]
    log.os = _FaultyOs(faults, "log")  # type: ignore[assignment]
    real_open = files.open_async
    files.open_async = _FaultyFiles(faults)  # type: ignore[assignment]
    Path.replace = lambda path, target: faults.call("replace", kept[0], path, target)  # type: ignore[method-assign]
    Path.unlink = lambda path, *rest: faults.call("unlink", kept[1], path, *rest)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Path.replace, Path.unlink = kept  # type: ignore[method-assign]
        files.os = log.os = os
        files.open_async = real_open


class SecondProcess:
    """The second process, as the first one uses it. It is started when it is needed, and again each time it was killed."""

    def __init__(self) -> None:
        self._popen: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def use_folder(self, folder: Path) -> None:
        """Lets it work there from now on, with a clock that has seen no time yet."""
        self._folder = folder
        if self._popen is not None:
            self._send({"folder": str(folder), "now": 0})

    def send(self, command: Command, now: float, kill_at: int | None = None) -> None:
        if self._popen is None:
            self._popen = process("commands")
            self._send({"folder": str(self._folder), "now": 0})
        self._send({**command, "now": now, "kill_at": kill_at})

    def answer(self) -> Command:
        """Returns what ``CommandRunner.execute`` does; or ``killed``, with the ``secret`` that it had made by then."""
        assert self._popen is not None
        assert self._popen.stdout is not None
        answer: Command = {}
        while line := self._popen.stdout.readline():
            answer |= json.loads(line)
            if "answer" in answer:
                return dict(answer["answer"])
        assert self._popen.wait(10) == -signal.SIGKILL
        self.close()
        return {"killed": True, **answer}

    def close(self) -> None:
        if self._popen is not None:
            end(self._popen)
        self._popen = None

    def _send(self, command: Command) -> None:
        assert self._popen is not None
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(command).encode() + b"\n")
        self._popen.stdin.flush()


def process(*arguments: str) -> "subprocess.Popen[bytes]":
    """Starts this module as one of its two programs."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "tests.campaigns.life", *arguments]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": root}
    return subprocess.Popen(command, cwd=root, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def end(popen: "subprocess.Popen[bytes]") -> None:
    """Kills a process, and closes its pipes."""
    popen.kill()
    popen.wait(10)
    for stream in (popen.stdin, popen.stdout):
        if stream is not None:
            stream.close()


def run_commands() -> None:
    """Runs commands from the standard input: the program of ``SecondProcess``."""
    wall, generate = Clock(), secret.generate
    runner = CommandRunner(Path(), wall)

    def announce_secret(prefix: str = "sk-") -> str:
        text = generate(prefix)
        print_json({"secret": text})
        return text

    secret.generate = announce_secret
    for line in sys.stdin:
        command = json.loads(line)
        wall.now = command["now"]
        if "folder" in command:
            runner = CommandRunner(Path(command["folder"]), wall)
            continue
        faults: AbstractContextManager[None] = (
            inject_faults(FaultInjector(command["kill_at"], kill_this_process)) if command["kill_at"] else nullcontext()
        )
        with faults:
            answer = runner.execute(command)
        print_json({"answer": answer})


def make_changes_until_killed(folder: Path) -> None:
    """Creates a parent and two children and ends them, again and again: changes of one, two and three lines of the audit log."""
    runner = CommandRunner(folder, SteadyClock())
    for number in count():
        parent = _make_change(runner, "token.create", {"verb": "create", "spec": {"name": f"parent {number}"}})
        below = {"name": "child", "parent_id": parent}
        children = [_make_change(runner, "token.create", {"verb": "create", "spec": below}) for _ in range(2)]
        _make_change(runner, "token.rotate", {"verb": "rotate", "reference": parent, "grace": 60})
        _make_change(runner, "token.delete", {"verb": "delete", "reference": children[0]})
        _make_change(runner, "token.revoke", {"verb": "revoke", "reference": parent})


def _make_change(runner: CommandRunner, action: str, command: Command) -> str:
    """Makes a change and prints ``action id`` once it is acknowledged. Others get a moment to take the lock, too."""
    while "failed" in (answer := runner.execute(command)):
        assert "lock" in answer["failed"], answer
    assert "refused" not in answer, answer
    signal.sigtimedwait([], 0.001)
    token_id = answer.get("id") or command["reference"]
    os.write(1, f"{action} {token_id}\n".encode())
    return str(token_id)


def print_json(answer: Command) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[1] == "commands":
        run_commands()
    else:
        make_changes_until_killed(Path(sys.argv[2]))
