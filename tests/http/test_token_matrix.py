"""Who may do what to whose token: callers by tokens by verbs by fields, every cell asked on a real socket.

What is due follows from the tokens and the few rules in ``matrix_model`` and from the ``due_*`` functions of ``matrix_cells``.
After each cell the token file is compared: what was refused has changed nothing but the note of the last use, what was granted
has changed what was asked for and nothing else, and nobody has more rights than who granted them.
"""

import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.threads import Threads
from gateway.storage import files
from tests.http.matrix_cells import TABLE
from tests.http.matrix_model import (
    FILE,
    NAMES,
    SECRETS,
    TOKENS,
    WRITTEN,
    Cell,
    Change,
    Power,
    Requester,
    excess,
    own_power,
    power,
)
from tests.support.gateway import JSON, KEY, Running, running_gateway
from tests.support.reply import Reply, check_error
from tests.support.tokens import Clock
from tests.support.wire import Client, connected, request

THREADS = Threads("files")
_USE = re.compile(rb'"(last_used|last_used_from|usage_count)": [^\n]*')
_KINDS = {400: "invalid_request_error", 401: "invalid_request_error", 403: "permission_error"}
_HASH = re.compile(rb"[0-9a-f]{64}")


class MatrixGateway:
    """One gateway, asked again and again. Its file is put back after each change."""

    def __init__(self, folder: Path, gateway: Running, client: Client) -> None:
        self.path = folder / "api_tokens.json"
        self.audit = folder / "data" / "audit.jsonl"
        self.gateway = gateway
        self.client = client
        self.known = FILE
        self.not_found_bodies: dict[tuple[str, str], bytes] = {}

    async def ask(self, cell: Cell) -> Reply:
        secret = SECRETS.get(cell.caller.name)
        headers = [JSON] if secret is None else [JSON, ("Authorization", f"Bearer {secret}")]
        body = None if cell.body is None else json.dumps(cell.body).encode()
        await self.client.send(request(cell.method, cell.path, headers, body))
        return await self.client.reply()

    def is_changed(self) -> bool:
        """Looks closely only where it has not looked before."""
        data = self.path.read_bytes()
        if data == self.known:
            return False
        self.known = data
        return _USE.sub(b"", data) != _USE.sub(b"", FILE)

    def logged(self) -> int:
        return self.audit.stat().st_size if self.audit.exists() else 0

    async def put_back(self) -> None:
        """Under the lock: the gateway may be about to write last uses down."""
        fresh = self.path.with_suffix(".fresh")
        fresh.write_bytes(FILE)
        async with files.locked_async(self.path, 10, THREADS):
            fresh.replace(self.path)
        self.known = FILE
        await self.gateway.refresh_tokens()

    async def problems(self, cell: Cell) -> list[str]:
        """Everything that is wrong with the answer to this cell, and with what it did."""
        logged = self.logged()
        reply = await self.ask(cell)
        is_changed = self.is_changed()
        found = [*self.wrong_answer(cell, reply), *leaks(cell, reply)]
        if is_changed:
            found += wrong_changes(cell, json.loads(self.known), reply)
            await self.put_back()
        elif cell.due.changes:
            found.append("nothing was changed")
        if not is_changed and self.logged() != logged:
            found.append("a change was logged, and none was made")
        return [f"{cell}: {problem}; answer {reply.status} {reply.body.decode()[:300]}" for problem in found]

    def wrong_answer(self, cell: Cell, reply: Reply) -> Iterator[str]:
        if reply.status != cell.due.status:
            yield "wrong status"
        elif reply.status < 300:
            if not cell.due.shown(reply.json()):
                yield "wrong content"
        else:
            yield from self.wrong_error(cell, reply)

    def wrong_error(self, cell: Cell, reply: Reply) -> Iterator[str]:
        code = reply.json()["error"]["code"]
        error = check_error(reply, reply.status, _KINDS.get(reply.status, "invalid_request_error"), code)
        if error["param"] not in cell.due.params:
            yield "wrong param"
        if reply.status == 404 or error["param"] == "parent_id":  # to the letter the answer to what does not exist
            path = re.sub(r"tok_\w+|\w+@", "", cell.path)
            if self.not_found_bodies.setdefault((cell.method, path), reply.body) != reply.body:
                yield "tells that it exists"


def leaks(cell: Cell, reply: Reply) -> Iterator[str]:
    text = reply.body + repr(reply.headers).encode()
    if _HASH.search(text):
        yield "LEAK: a hash"
    if any(secret.encode() in text for secret in SECRETS.values()):
        yield "LEAK: a secret"
    for name, key in NAMES.items():
        if name.encode() in text and not cell.caller.sees(key):
            yield f"LEAK: the name {name}"


def wrong_changes(cell: Cell, content: Any, reply: Reply) -> Iterator[str]:
    after = {one["id"]: one for one in content["tokens"]}
    found = differences(after)
    if unasked := found - cell.due.changes:
        yield f"MASS ASSIGNMENT: {sorted(unasked)}"
    if missing := cell.due.changes - found:
        yield f"did not change {sorted(missing)}"
    yield from escalations(cell.caller, after, found)
    shown = reply.json() if reply.status < 300 else {}
    digest = hashlib.sha256(str(shown.get("token", shown.get("key"))).encode()).hexdigest()
    if ({"token", "key"} & set(shown)) and digest not in {one["hash"] for one in after.values()}:
        yield "the secret that was shown is nobody's"


def escalations(caller: Requester, after: Mapping[str, Any], changes: set[Change]) -> Iterator[str]:
    """Whatever was touched, but for its end, is within what the caller has; what was set is within what the parent has."""
    touched = {key for key, field in changes if field != "revoked_at"} & after.keys()
    for key in touched | (after.keys() - TOKENS.keys()):
        is_set = [field for field in Power._fields if key not in TOKENS or (key, field) in changes]
        above = excess(own_power(after[key]), power(after, after[key]["parent_id"])).intersection(is_set)
        if more := excess(power(after, key), caller.power) | above:
            yield f"ESCALATION: {key} has more than who made it: {sorted(more)}"


def differences(after: Mapping[str, Any]) -> set[Change]:
    found = {("new", "*") for key in after if key not in TOKENS} | {(key, "*") for key in TOKENS if key not in after}
    for key in TOKENS.keys() & after.keys():
        before = WRITTEN[key]
        if before != after[key]:
            old, new = plain(before), plain({"previous_secrets": None, **after[key]})
            found |= {(key, field) for field in new if plain(old.get(field)) != plain(new[field])}
    return found


def plain(value: Any) -> Any:
    """Without what is noted of the uses of replaced secrets."""
    if isinstance(value, dict):
        return {name: one for name, one in value.items() if name not in ("last_used", "last_used_from", "usage_count")}
    return [plain(one) for one in value] if isinstance(value, list) else value


@asynccontextmanager
async def matrix_gateway(folder: Path) -> AsyncIterator[MatrixGateway]:
    (folder / "api_tokens.json").write_bytes(FILE)
    values = {"FREEGPT_API_KEY": KEY, "GATEWAY_DATA_DIR": str(folder / "data"), "GATEWAY_LOG_LEVEL": "error"}
    values["GATEWAY_CHANGES_PER_MINUTE"] = "100000"
    async with (
        running_gateway(folder, app_options={"clock": Clock()}, **values) as gateway,
        connected(gateway.port) as client,
    ):
        yield MatrixGateway(folder, gateway, client)


@pytest.mark.parametrize("area", TABLE)
async def test_every_cell(tmp_path: Path, area: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody cuts the power here, and thousands of files are written
    problems: list[str] = []
    async with matrix_gateway(tmp_path) as asked:
        for cell in TABLE[area]:
            problems += await asked.problems(cell)
    counts = {word: sum(word in problem for problem in problems) for word in ("LEAK", "MASS ASSIGNMENT", "ESCALATION")}
    assert not problems, "\n".join([f"{len(problems)} of {len(TABLE[area])}, {counts}", *problems[:20]])


def test_the_table_is_large() -> None:
    cells = {area: len(found) for area, found in TABLE.items()}
    assert sum(cells.values()) > 10_000, cells
    granted = sum(cell.due.status < 300 for found in TABLE.values() for cell in found)
    assert granted > 2_000, "a table that refuses everything proves nothing"
