"""What tokens go through, done for real: here or in a second process, on disks that fail, with deaths in the middle of a write.

``python -m tests.campaigns.life orders`` is that second process. It reads one order a line, does it and answers; a new secret is
said before anything is written, so that whoever kills the process knows it. ``python -m tests.campaigns.life changes FOLDER``
makes changes until it is killed, and says each once it is done.
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

import aiofiles

from gateway.audit import log
from gateway.audit.log import AUDIT_FILE, AuditLog
from gateway.core.clock import SteadyClock
from gateway.limits.config import read_limits
from gateway.storage import files
from gateway.tokens import changes, operations, secret
from gateway.tokens.changes import ChangeRefused, TokenSpec
from gateway.tokens.lookup import AmbiguousToken, NoSuchToken
from gateway.tokens.models import Role, TokenRecord
from gateway.tokens.store import TokensDamaged
from gateway.tokens.stores import json_format
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore
from gateway.tokens.uses import Use, UseKey
from tests.support.tokens import BY, Clock

TOKENS = "api_tokens.json"
Order = dict[str, Any]
"""``verb`` and what it takes; times as seconds since the epoch."""


def audit_path(folder: Path) -> Path:
    return folder / "data" / AUDIT_FILE


class Hands:
    """Changes as the command line makes them, and uses as the recorder of another worker writes them."""

    def __init__(self, folder: Path, wall: Callable[[], float]) -> None:
        self.clock = SteadyClock(wall)
        self._store = JsonTokenStore(
            JsonTokenFile(folder / TOKENS), AuditLog(audit_path(folder), self.clock), self.clock
        )

    def tokens(self) -> tuple[TokenRecord, ...]:
        return asyncio.run(operations.read_or_empty(self._store)).records

    def do(self, order: Order) -> Order:
        """The new ``id`` and ``secret`` if there are any, or ``refused``, or ``failed``: then nothing shall have changed."""
        self.clock()
        try:
            return asyncio.run(getattr(self, f"_{order['verb']}")(order)) or {}
        except (ChangeRefused, NoSuchToken, AmbiguousToken) as error:
            return {"refused": type(error).__name__}
        except (OSError, TokensDamaged) as error:
            return {"failed": str(error)}

    async def _create(self, order: Order) -> Order:
        made = await operations.create(self._store, BY, TokenSpec(**fields(order["wish"])))
        return {"id": made.record.id, "secret": made.secret}

    async def _rotate(self, order: Order) -> Order:
        made = await operations.rotate(self._store, BY, order["reference"], order["grace"])
        return {"id": made.record.id, "secret": made.secret}

    async def _revoke(self, order: Order) -> None:
        await operations.revoke(self._store, BY, order["reference"])

    async def _delete(self, order: Order) -> None:
        await operations.delete(self._store, BY, order["reference"])

    async def _patch(self, order: Order) -> None:
        async with self._store.transaction(BY) as tx:
            record = tx.tokens.find_by_id(order["reference"])
            if record is None:
                raise NoSuchToken
            tx.apply(changes.update(tx.tokens, record, fields(order["values"])))

    async def _import(self, order: Order) -> None:
        await operations.import_records(self._store, BY, json_format.decode(order["text"].encode()).tokens)

    async def _use(self, order: Order) -> None:
        uses = {UseKey(order["id"], order["hash"]): Use(order["times"], int(self.clock()), order["address"])}
        await self._store.record_uses(uses)


def fields(values: Order) -> Order:
    """From what JSON can say to what a token has."""
    kept = dict(values)
    if "rpm" in kept:
        kept["limits"] = read_limits({"rpm": kept.pop("rpm")})
    if kept.get("models") is not None:
        kept["models"] = tuple(kept["models"])
    if "role" in kept:
        kept["role"] = Role(kept["role"])
    return kept


class Trap:
    """Counts what a write asks of the disk, and springs at the ``at``-th request - a write is half done by then. ``lasting``:
    all later ones fail, too."""

    def __init__(self, at: int, spring: Callable[[], None], *, lasting: bool = False) -> None:
        self._at = at
        self._spring = spring
        self._lasting = lasting
        self._count = 0
        self.sprung: list[str] = []
        """Under which calls."""

    def passes(self) -> bool:
        self._count += 1
        return self._count < self._at or (self._count > self._at and not self._lasting)

    def spring(self, name: str) -> None:
        self.sprung.append(name)
        self._spring()

    def guard(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        if not self.passes():
            if name.endswith("pwrite"):
                descriptor, data, place = arguments
                real(descriptor, data[: len(data) // 2], place)
            elif name.endswith("close"):
                real(*arguments)
            self.spring(name)
        return real(*arguments)


def fail() -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _System:
    """The module ``os``, with a trap under what changes a file. ``room`` is the module that asks."""

    def __init__(self, trap: Trap, room: str) -> None:
        self._trap = trap
        self._room = room

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("chown", "close", "fchmod", "fstat", "fsync", "ftruncate", "open", "pread", "pwrite"):
            return real
        return lambda *arguments, **more: self._trap.guard(f"{self._room}.{name}", partial(real, **more), *arguments)


class _Output:
    """A file that is written."""

    def __init__(self, opening: Any, trap: Trap) -> None:
        self._opening = opening
        self._trap = trap

    async def __aenter__(self) -> "_Output":
        self._file = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._opening.__aexit__(*error)

    def fileno(self) -> int:
        return int(self._file.fileno())

    async def flush(self) -> None:
        await self._file.flush()

    async def write(self, data: bytes) -> None:
        if not self._trap.passes():
            await self._file.write(data[: len(data) // 2])
            await self._file.flush()
            self._trap.spring("write")
        await self._file.write(data)


class _Appended:
    """The audit log's file, with a trap under every call."""

    def __init__(self, opening: Any, trap: Trap) -> None:
        self._opening = opening
        self._trap = trap

    async def __aenter__(self) -> "_Appended":
        self._file = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._opening.__aexit__(*error)
        if not self._trap.passes():
            self._trap.spring("journal.close")

    def fileno(self) -> int:
        return int(self._file.fileno())

    async def write(self, data: bytes) -> int:
        if not self._trap.passes():
            await self._file.write(data[: len(data) // 2])
            self._trap.spring("journal.write")
        return int(await self._file.write(data))

    async def read(self, size: int) -> bytes:
        return bytes(await self._trapped("read", size))

    async def seek(self, *place: int) -> int:
        return int(await self._trapped("seek", *place))

    async def truncate(self, size: int) -> int:
        return int(await self._trapped("truncate", size))

    async def _trapped(self, name: str, *arguments: int) -> Any:
        if not self._trap.passes():
            self._trap.spring(f"journal.{name}")
        return await getattr(self._file, name)(*arguments)


class _Aiofiles:
    """The module ``aiofiles``, with a trap under what writes."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap

    def open(self, path: Path, mode: str, **options: Any) -> Any:
        opening = aiofiles.open(path, mode, **options)  # type: ignore[call-overload]
        files_by_mode = {"wb": _Output, "r+b": _Appended}
        return files_by_mode[mode](opening, self._trap) if mode in files_by_mode else opening


@contextmanager
def trapped(trap: Trap) -> Iterator[None]:
    """Under the two modules that write: the token file's and the audit log's."""
    kept = Path.replace, Path.unlink
    files.os = _System(trap, "atomic_file")  # type: ignore[assignment]
    log.os = _System(trap, "journal")  # type: ignore[assignment]
    files.aiofiles = log.aiofiles = _Aiofiles(trap)  # type: ignore[assignment]
    Path.replace = lambda path, target: trap.guard("replace", kept[0], path, target)  # type: ignore[method-assign]
    Path.unlink = lambda path, *rest: trap.guard("unlink", kept[1], path, *rest)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Path.replace, Path.unlink = kept  # type: ignore[method-assign]
        files.os = log.os = os
        files.aiofiles = log.aiofiles = aiofiles


class Second:
    """The second process, seen from the first. It is started when it is needed, and again after each death."""

    def __init__(self) -> None:
        self._popen: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def begin(self, folder: Path) -> None:
        """From now on it works there, with a clock that has seen nothing yet."""
        self._folder = folder
        if self._popen is not None:
            self._send({"folder": str(folder), "now": 0})

    def send(self, order: Order, now: float, die_at: int | None = None) -> None:
        if self._popen is None:
            self._popen = process("orders")
            self._send({"folder": str(self._folder), "now": 0})
        self._send({**order, "now": now, "die_at": die_at})

    def answer(self) -> Order:
        """As ``Hands.do``; or ``died``, with the ``secret`` that it had made by then."""
        assert self._popen is not None
        assert self._popen.stdout is not None
        said: Order = {}
        while line := self._popen.stdout.readline():
            said |= json.loads(line)
            if "answer" in said:
                return dict(said["answer"])
        assert self._popen.wait(10) == -signal.SIGKILL
        self.close()
        return {"died": True, **said}

    def close(self) -> None:
        if self._popen is not None:
            end(self._popen)
        self._popen = None

    def _send(self, order: Order) -> None:
        assert self._popen is not None
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(order).encode() + b"\n")
        self._popen.stdin.flush()


def process(*arguments: str) -> "subprocess.Popen[bytes]":
    """One of the two that this module can be."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "tests.campaigns.life", *arguments]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": root}
    return subprocess.Popen(command, cwd=root, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def end(popen: "subprocess.Popen[bytes]") -> None:
    """Kill it, and close what leads to it."""
    popen.kill()
    popen.wait(10)
    for stream in (popen.stdin, popen.stdout):
        if stream is not None:
            stream.close()


def take_orders() -> None:
    """The second process."""
    wall, generate = Clock(), secret.generate
    hands = Hands(Path(), wall)

    def said_first(prefix: str = "sk-") -> str:
        text = generate(prefix)
        say({"secret": text})
        return text

    secret.generate = said_first
    for line in sys.stdin:
        order = json.loads(line)
        wall.now = order["now"]
        if "folder" in order:
            hands = Hands(Path(order["folder"]), wall)
            continue
        trap: AbstractContextManager[None] = trapped(Trap(order["die_at"], die)) if order["die_at"] else nullcontext()
        with trap:
            answer = hands.do(order)
        say({"answer": answer})


def change_for_ever(folder: Path) -> None:
    """A parent and two children, of which one goes with it: changes of one, two and three lines."""
    hands = Hands(folder, SteadyClock())
    for number in count():
        parent = _done(hands, "token.create", {"verb": "create", "wish": {"name": f"parent {number}"}})
        below = {"name": "child", "parent_id": parent}
        children = [_done(hands, "token.create", {"verb": "create", "wish": below}) for _ in range(2)]
        _done(hands, "token.rotate", {"verb": "rotate", "reference": parent, "grace": 60})
        _done(hands, "token.delete", {"verb": "delete", "reference": children[0]})
        _done(hands, "token.revoke", {"verb": "revoke", "reference": parent})


def _done(hands: Hands, action: str, order: Order) -> str:
    """Says ``action id`` once it was acknowledged, and gives others a moment to get the lock, too."""
    while "failed" in (answer := hands.do(order)):
        assert "lock" in answer["failed"], answer
    assert "refused" not in answer, answer
    signal.sigtimedwait([], 0.001)
    token_id = answer.get("id") or order["reference"]
    os.write(1, f"{action} {token_id}\n".encode())
    return str(token_id)


def say(what: Order) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[1] == "orders":
        take_orders()
    else:
        change_for_ever(Path(sys.argv[2]))
