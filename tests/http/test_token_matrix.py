"""Who may do what to whose token: callers by tokens by verbs by fields, every cell asked on a real socket.

What is due follows from the tokens below and from the few rules in ``Requester`` and the ``due_*`` functions; none of it is asked
of the gateway's own tables. After each cell the token file is compared: what was refused has changed nothing but the note
of the last use, what was granted has changed what was asked for and nothing else, and nobody holds more than the giver.
"""

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.core.clock import to_iso
from gateway.storage import files
from gateway.tokens.stores import json_format as codec
from tests.support.gateway import JSON, KEY, Running, running_gateway
from tests.support.reply import Reply, check_error
from tests.support.tokens import NOW, STRANGE_KEY, Clock, content, entry
from tests.support.wire import Client, connected, request

ANN, BOB, NOBODY = "ann@example.com", "bob@example.com", "nobody@example.com"
HALF_AN_HOUR, AN_HOUR, A_DAY = to_iso(NOW + 1800), to_iso(NOW + 3600), to_iso(NOW + 86_400)

# Ladders: each rung holds less than the one behind it.
ROLES = ["service", "member", "admin"]
MODELS: list[Any] = [[], ["gpt-4o"], ["gpt-*"], None]
LIMITS: list[Any] = [{"rpm": 1}, {"rpm": 10}, {"rpm": 60}, None]

SECRETS: dict[str, str] = {}
TOKENS: dict[str, dict[str, Any]] = {}


def token(key: str, owner: str | None = None, parent: str | None = None, kind: str = "sk-", **fields: Any) -> None:
    """Put one into the file. Its name tells nobody's id, so that either can be looked for in an answer."""
    SECRETS[key] = f"{kind}{key}-secret-that-is-made-up"
    above = None if parent is None else f"tok_{parent}"
    kept = {"id": f"tok_{key}", "name": f"[{key}]", "owner": owner, "parent_id": above, **fields}
    TOKENS[f"tok_{key}"] = entry(SECRETS[key], **kept)


def replaced(key: str) -> dict[str, Any]:
    """A rotation has replaced this secret; it works for an hour more."""
    SECRETS[key] = f"sk-{key}-secret-that-is-made-up"
    digest = hashlib.sha256(SECRETS[key].encode()).hexdigest()
    return {"prefix": SECRETS[key][:14], "hash": digest, "rotated_at": to_iso(NOW - 60), "valid_until": AN_HOUR}


token("admin", role="admin", previous_secrets=[replaced("old_admin")])
token("ann_admin", ANN, role="admin")
token("narrow_admin", role="admin", models=["gpt-*"], limits={"rpm": 60}, expires_at=A_DAY)
token("member", ANN, previous_secrets=[replaced("old_member")])
token("child", ANN, "member")
token("grandchild", ANN, "child", limits={"rpm": 60})
token("puppet", ANN, "member", role="admin")  # an admin by its own record, and its parent is none
token("weak", ANN, models=["gpt-4o"], limits={"rpm": 10}, expires_at=HALF_AN_HOUR)
token("limited", ANN, models=["gpt-*"], limits={"rpm": 60}, expires_at=A_DAY)
token("limited_child", ANN, "limited", models=["gpt-4o"])
token("tester", ANN, kind="sk_test_")
token("service", ANN, role="service")
token("ann_key", ANN, kind="sk_live_", limits={"rpm": 60})
token("expired", ANN, expires_at=to_iso(NOW))
token("revoked", ANN, revoked_at=to_iso(NOW - 60))
token("orphan", ANN, "revoked")
token("bob", BOB)
token("bob_child", BOB, "bob", role="service")
token("bob_key", BOB, kind="sk_live_")
token("bob_key_child", BOB, "bob_key")
token("lone")
token("lone_child", None, "lone")
token("other_lone")

SECRETS |= {"environment": KEY, "unknown": STRANGE_KEY, "mistyped": STRANGE_KEY[:-1] + "x"}
HELD_BY = {"old_admin": "tok_admin", "old_member": "tok_member"}
MISSING = "tok_missing"
CALLERS = ("nobody", *SECRETS)
OBJECTS = (*TOKENS, MISSING)
NAMES = {one["name"]: one["id"] for one in TOKENS.values()}


class Power(NamedTuple):
    """How much a token may do, each field as a number, under the names that errors have for them."""

    role: float = len(ROLES) - 1
    prefix: float = 1
    models: float = len(MODELS) - 1
    limits: float = len(LIMITS) - 1
    expires_at: float = math.inf


def line(tokens: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A token and its parents."""
    one = tokens[key]
    return [one] if one["parent_id"] is None else [one, *line(tokens, one["parent_id"])]


def seconds(text: str | None) -> float:
    return math.inf if text is None else datetime.fromisoformat(text).timestamp()


def own_power(one: Mapping[str, Any]) -> Power:
    return Power(
        ROLES.index(one.get("role", "member")),
        not one["prefix"].startswith("sk_test_"),
        MODELS.index(one.get("models")),
        LIMITS.index(one.get("limits")),
        seconds(one.get("expires_at")),
    )


def power(tokens: Mapping[str, Any], key: str | None) -> Power:
    """The least along the line."""
    return Power() if key is None else Power(*map(min, zip(*map(own_power, line(tokens, key)), strict=True)))


def excess(wanted: Power, given: Power) -> set[str]:
    return {name for name, more, less in zip(Power._fields, wanted, given, strict=True) if more > less}


def is_dead(key: str) -> bool:
    return any(one.get("revoked_at") or seconds(one.get("expires_at")) <= NOW for one in line(TOKENS, key))


def below(key: str) -> set[str]:
    return {other for other in TOKENS if key in {one["id"] for one in line(TOKENS, other)[1:]}}


class Requester:
    """Who asks. ``key`` is None for who holds no token."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = HELD_BY.get(name, f"tok_{name}" if f"tok_{name}" in TOKENS else None)
        self.is_refused = name in ("nobody", "unknown", "mistyped") or (self.key is not None and is_dead(self.key))
        self.power = power(TOKENS, self.key)
        if name in HELD_BY:
            self.power = self.power._replace(expires_at=min(self.power.expires_at, seconds(AN_HOUR)))
        self.is_admin = ROLES[int(self.power.role)] == "admin"
        self.is_service = ROLES[int(self.power.role)] == "service"
        self.owner = TOKENS[self.key]["owner"] if self.key else None

    def sees(self, key: str) -> bool:
        if self.is_refused or key not in TOKENS:
            return False
        if self.is_admin or self.is_service:
            return self.is_admin or key == self.key
        is_of_its_owner = self.owner is not None and TOKENS[key]["owner"] == self.owner
        return key == self.key or is_of_its_owner or (self.key is not None and key in below(self.key))


Change = tuple[str, str]
"""An id and a field: ``*`` stands for a whole record, ``new`` for the id of a new one."""


class Due(NamedTuple):
    """The status; for errors which fields ``param`` may name; for the rest all that changes in the file, and to what."""

    status: int
    params: frozenset[str | None] = frozenset({None})
    changes: frozenset[Change] = frozenset()
    shown: Callable[[Any], bool] = lambda _: True


def refused(status: int, *params: str) -> Due:
    return Due(status, frozenset(params or [None]))


def done(changes: Iterator[Change] | set[Change], status: int = 200, shown: Callable[[Any], bool] = bool) -> Due:
    return Due(status, changes=frozenset(changes), shown=shown)


class Cell(NamedTuple):
    caller: Requester
    method: str
    path: str
    body: Any
    due: Due

    def __str__(self) -> str:
        return f"{self.caller.name}: {self.method} {self.path} {json.dumps(self.body)} -> {self.due[:2]}"


def due_to(caller: Requester, verb: str, key: str) -> Due | None:
    """Why this caller may not do this to this token; None where it may."""
    if caller.is_refused:
        return refused(401)
    if verb != "read" and caller.is_service:
        return refused(403)
    if not caller.sees(key):
        return refused(404)
    if verb in ("update", "rotate", "delete") and (more := excess(power(TOKENS, key), caller.power)):
        return refused(403, *more)
    return refused(409) if verb == "rotate" and is_dead(key) else None


def ends(keys: set[str]) -> set[Change]:
    """What revoking them changes: what is revoked stays as it is."""
    return {(key, "revoked_at") for key in keys if not TOKENS[key].get("revoked_at")}


def reads(caller: Requester) -> Iterator[Cell]:
    for key, path in itertools.product(OBJECTS, ("", "/usage")):
        due = due_to(caller, "read", key) or done(set(), shown=lambda shown, key=key: shown["id"] == key)
        yield Cell(caller, "GET", f"/api/tokens/{key}{path}", None, due)


def revokes(caller: Requester) -> Iterator[Cell]:
    for key in OBJECTS:
        due = due_to(caller, "revoke", key) or done(ends({key} | below(key)))
        yield Cell(caller, "POST", f"/api/tokens/{key}/revoke", None, due)


def deletes(caller: Requester) -> Iterator[Cell]:
    for key in OBJECTS:
        due = due_to(caller, "delete", key) or done({(key, "*")} | ends(below(key)))
        yield Cell(caller, "DELETE", f"/api/tokens/{key}", None, due)


def rotates(caller: Requester) -> Iterator[Cell]:
    changed = ("prefix", "hash", "previous_secrets")
    for key in OBJECTS:
        due = due_to(caller, "rotate", key) or done({(key, field) for field in changed})
        yield Cell(caller, "POST", f"/api/tokens/{key}/rotate", {"grace": "24h"}, due)


CHANGES: list[tuple[str, Any]] = [
    ("name", "another name"), ("metadata", {"team": "blue"}), ("owner", ANN), ("owner", BOB), ("owner", None),
    ("role", "admin"), ("role", "service"), ("models", None), ("models", ["gpt-4o"]), ("limits", None),
    ("limits", {"rpm": 1}), ("expires_at", None), ("expires_at", to_iso(NOW + 900)), ("expires_in", "never"),
]  # fmt: skip
_STORED = {"never": None, "15m": to_iso(NOW + 900)}  # of ``expires_in``


def stored(field: str, value: Any) -> tuple[str, Any]:
    """The field of the record that is meant, and its value."""
    return ("expires_at", _STORED[value]) if field == "expires_in" else (field, value)


def updates(caller: Requester) -> Iterator[Cell]:
    can_not = caller.is_refused or caller.is_service
    for key, (field, value) in itertools.product(OBJECTS, CHANGES[:1] if can_not else CHANGES):
        due = due_to(caller, "update", key) or due_to_update(caller, key, *stored(field, value))
        yield Cell(caller, "PATCH", f"/api/tokens/{key}", {field: value}, due)


def due_to_update(caller: Requester, key: str, field: str, value: Any) -> Due:
    before = TOKENS[key]
    if field == "owner" and value != before["owner"] and (not caller.is_admin or before["parent_id"]):
        return refused(400 if caller.is_admin else 403, field)
    wanted = own_power({**before, field: value})
    if field in excess(wanted, caller.power):
        return refused(403, field)
    if field in excess(wanted, power(TOKENS, before["parent_id"])):
        return refused(400, field)
    touched = {key} | (below(key) if field == "owner" else set())
    default = {"role": "member", "metadata": {}}.get(field)
    changed = {(one, field) for one in touched if TOKENS[one].get(field, default) != value}
    return done(changed, shown=lambda shown: shown[field] == value)


NOT_SETTABLE: dict[str, Any] = {
    "id": "tok_mine", "hash": "0" * 64, "created_at": to_iso(NOW - 9), "revoked_at": None, "last_used": None,
    "usage_count": 0, "status": "active", "previous_secrets": [], "token": "sk-of-my-own-choice-for-this-token",
    "Role": "admin", "ROLE": "admin", "is_admin": True, "scopes": ["*"], "expires": "never", "active": True,
    "unknown": {"role": "admin"}, "record": {"role": "admin"}, "__class__": "admin", "": 1, "role ": "admin",
    "limits.rpm": 9, "models[]": "*",
}  # fmt: skip
NOT_CHANGEABLE = {**NOT_SETTABLE, "prefix": "sk-", "parent_id": None, "parent_id ": "tok_admin"}


def mass_assignments(caller: Requester) -> Iterator[Cell]:
    """A field that may not be set, alone and beside one that may: neither is."""
    due = due_to(caller, "create", caller.key or "tok_lone")
    most = 1 if due else None
    for field, value in itertools.islice(NOT_SETTABLE.items(), most):
        yield Cell(caller, "POST", "/api/tokens", {"name": "new", field: value}, due or refused(400, field))
    changes = list(itertools.product(NOT_CHANGEABLE.items(), ({}, {"name": "another name"})))
    for key in dict.fromkeys((caller.key or MISSING, "tok_bob", "tok_grandchild")):
        for (field, value), beside in changes[:most]:
            body = {**beside, field: value}
            yield Cell(caller, "PATCH", f"/api/tokens/{key}", body, due or refused(400, field))


WISHES: list[dict[str, Any]] = [
    {}, {"metadata": {"team": "blue"}}, {"role": "admin"}, {"role": "member"}, {"role": "service"},
    *({"models": models} for models in MODELS), *({"limits": limits} for limits in LIMITS),
    *({"expires_at": at} for at in (None, A_DAY, HALF_AN_HOUR)), {"expires_in": "never"}, {"expires_in": "15m"},
    {"owner": ANN}, {"owner": BOB}, {"owner": None}, {"prefix": "sk-"}, {"prefix": "sk_live_"}, {"prefix": "sk_test_"},
    {"role": "admin", "models": None, "limits": None, "expires_at": None, "prefix": "sk-"},
    *({"parent_id": key} for key in (None, *OBJECTS)),
    *({"parent_id": f"tok_{key}", "models": None, "expires_at": None} for key in ("limited", "weak", "child")),
    *({"parent_id": f"tok_{key}", "role": "admin"} for key in ("member", "bob_child", "puppet")),
    {"parent_id": "tok_tester", "prefix": "sk-"}, {"parent_id": "tok_member", "owner": BOB},
]  # fmt: skip


def creates(caller: Requester) -> Iterator[Cell]:
    for spec in WISHES:
        due = due_to(caller, "create", caller.key or "tok_lone") or due_to_create(caller, spec)
        yield Cell(caller, "POST", "/api/tokens", {"name": "new", **spec}, due)


def due_to_create(caller: Requester, spec: Mapping[str, Any]) -> Due:
    parent = spec.get("parent_id") or (None if caller.is_admin else caller.key)
    is_within_reach = caller.is_admin or parent == caller.key or parent in below(caller.key or "")
    if parent is not None and (parent not in TOKENS or is_dead(parent) or not is_within_reach):
        return refused(400, "parent_id")
    due = TOKENS[parent]["owner"] if parent else None
    owner = spec.get("owner", due)
    given = power(TOKENS, parent) if parent else caller.power
    wanted = wished(spec, given)
    if owner != due and not caller.is_admin:
        return refused(403, "owner")
    if more := excess(wanted, caller.power):
        return refused(403, *more)
    if owner != due and parent:
        return refused(400, "owner")
    if more := excess(wanted, given):
        return refused(400, *more)
    return done({("new", "*")}, 201, lambda shown: (shown["parent_id"], shown["owner"]) == (parent, owner))


def wished(spec: Mapping[str, Any], given: Power) -> Power:
    """What the new token would have: what is not wished for comes from the giver, and a member is enough."""
    named = dict(stored(field, value) for field, value in spec.items())
    base = given._replace(role=min(given.role, ROLES.index("member")))
    asked = own_power({"prefix": "sk-", **named})._asdict()
    return base._replace(**{field: number for field, number in asked.items() if field in named})


def user_keys(caller: Requester) -> Iterator[Cell]:
    for email, key in ((ANN, "tok_ann_key"), (BOB, "tok_bob_key"), (NOBODY, None)):
        is_theirs = caller.is_admin or (caller.owner == email and not caller.is_service)
        may_not = due_to(caller, "create", caller.key or "tok_lone")
        ending = ends({key} | below(key)) if key else set()
        for path, name in (("key", "keyPreference"), ("usage", "usage")):
            told = done(set(), shown=lambda shown, name=name, key=key: shown[name]["hasKey"] == bool(key))
            due = refused(401) if caller.is_refused else told if is_theirs else refused(404)
            yield Cell(caller, "GET", f"/api/user/{path}/{email}", None, due)
        gone = done(ending) if is_theirs and key else refused(404)
        yield Cell(caller, "DELETE", f"/api/user/key/{email}", None, may_not or gone)
        made = refused(403, "email") if not is_theirs else done({("new", "*"), *ending})
        made = refused(403, "prefix") if is_theirs and not caller.power.prefix else made
        yield Cell(caller, "POST", "/api/user/key", {"email": email, "key_name": "new"}, may_not or made)


def lists(caller: Requester) -> Iterator[Cell]:
    queries: dict[str, Callable[[str], bool]] = {
        "": lambda key: True,
        "?per_page=100&page=1": lambda key: True,
        "?page=2": lambda key: False,
        f"?owner={BOB}": lambda key: TOKENS[key]["owner"] == BOB,
        "?status=active": lambda key: not is_dead(key),
        "?status=revoked": lambda key: key in ("tok_revoked", "tok_orphan"),
        "?status=expired": lambda key: key == "tok_expired",
        "?name=%5Bb*": lambda key: TOKENS[key]["name"].startswith("[b"),
    }
    for query, fits in queries.items():
        seen = [key for key in TOKENS if caller.sees(key) and fits(key)]
        told = done(set(), shown=lambda shown, seen=seen: [one["id"] for one in shown["tokens"]] == seen)
        yield Cell(caller, "GET", f"/api/tokens{query}", None, refused(401) if caller.is_refused else told)


def me(caller: Requester) -> Iterator[Cell]:
    kind = "token" if caller.key else "environment"
    role, models = ROLES[int(caller.power.role)], MODELS[int(caller.power.models)]
    told = (kind, role, caller.owner, models, not caller.power.prefix)
    ending = None if caller.power.expires_at == math.inf else to_iso(int(caller.power.expires_at))

    def shown(answer: Any) -> bool:
        found = tuple(answer[name] for name in ("kind", "role", "owner", "models", "is_test"))
        itself = answer["token"]["id"] if answer["token"] else None
        return (found, answer["expires_at"], itself) == (told, ending, caller.key)

    yield Cell(caller, "GET", "/api/me", None, refused(401) if caller.is_refused else done(set(), shown=shown))


AREAS = (reads, revokes, deletes, rotates, updates, mass_assignments, creates, user_keys, lists, me)
TABLE = {area.__name__: [cell for name in CALLERS for cell in area(Requester(name))] for area in AREAS}

_USE = re.compile(rb'"(last_used|last_used_from|usage_count)": [^\n]*')
_KINDS = {400: "invalid_request_error", 401: "invalid_request_error", 403: "permission_error"}
_HASH = re.compile(rb"[0-9a-f]{64}")


class Scene:
    """One gateway, asked again and again. Its file is put back after each change."""

    def __init__(self, folder: Path, gateway: Running, client: Client) -> None:
        self.path = folder / "api_tokens.json"
        self.audit = folder / "data" / "audit.jsonl"
        self.gateway = gateway
        self.client = client
        self.known = FILE
        self.not_found: dict[tuple[str, str], bytes] = {}

    async def ask(self, cell: Cell) -> Reply:
        held = SECRETS.get(cell.caller.name)
        headers = [JSON] if held is None else [JSON, ("Authorization", f"Bearer {held}")]
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
        with files.locked(self.path, 10):
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
            if self.not_found.setdefault((cell.method, path), reply.body) != reply.body:
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
            yield f"ESCALATION: {key} has more than its giver: {sorted(more)}"


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


FILE = codec.encode(codec.decode(content(*TOKENS.values())))
WRITTEN = {one["id"]: one for one in json.loads(FILE)["tokens"]}


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    (folder / "api_tokens.json").write_bytes(FILE)
    values = {"FREEGPT_API_KEY": KEY, "GATEWAY_DATA_DIR": str(folder / "data"), "GATEWAY_LOG_LEVEL": "error"}
    async with (
        running_gateway(folder, app_options={"clock": Clock()}, **values) as gateway,
        connected(gateway.port) as client,
    ):
        yield Scene(folder, gateway, client)


@pytest.mark.parametrize("area", TABLE)
async def test_every_cell(tmp_path: Path, area: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody cuts the power here, and thousands of files are written
    problems: list[str] = []
    async with scene(tmp_path) as asked:
        for cell in TABLE[area]:
            problems += await asked.problems(cell)
    counts = {word: sum(word in problem for problem in problems) for word in ("LEAK", "MASS ASSIGNMENT", "ESCALATION")}
    assert not problems, "\n".join([f"{len(problems)} of {len(TABLE[area])}, {counts}", *problems[:20]])


def test_the_table_is_large() -> None:
    cells = {area: len(found) for area, found in TABLE.items()}
    assert sum(cells.values()) > 10_000, cells
    granted = sum(cell.due.status < 300 for found in TABLE.values() for cell in found)
    assert granted > 2_000, "a table that refuses everything proves nothing"
