"""The tokens of the matrix of rights, and what a caller may do to a token. None of it is asked of the gateway's own tables."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from gateway.core.clock import to_iso
from gateway.tokens.stores import json_format as codec
from tests.support.gateway import KEY
from tests.support.tokens import NOW, STRANGE_KEY, content, entry

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
TOKEN_OF_SECRET = {"old_admin": "tok_admin", "old_member": "tok_member"}
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


def chain(tokens: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A token and its parents."""
    one = tokens[key]
    return [one] if one["parent_id"] is None else [one, *chain(tokens, one["parent_id"])]


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
    """Returns the least of a token and its parents."""
    return Power() if key is None else Power(*map(min, zip(*map(own_power, chain(tokens, key)), strict=True)))


def excess(wanted: Power, given: Power) -> set[str]:
    return {name for name, more, less in zip(Power._fields, wanted, given, strict=True) if more > less}


def is_dead(key: str) -> bool:
    return any(one.get("revoked_at") or seconds(one.get("expires_at")) <= NOW for one in chain(TOKENS, key))


def below(key: str) -> set[str]:
    return {other for other in TOKENS if key in {one["id"] for one in chain(TOKENS, other)[1:]}}


class Requester:
    """Who asks. ``key`` is None for who holds no token."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = TOKEN_OF_SECRET.get(name, f"tok_{name}" if f"tok_{name}" in TOKENS else None)
        self.is_refused = name in ("nobody", "unknown", "mistyped") or (self.key is not None and is_dead(self.key))
        self.power = power(TOKENS, self.key)
        if name in TOKEN_OF_SECRET:
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


def allowed(changes: Iterator[Change] | set[Change], status: int = 200, shown: Callable[[Any], bool] = bool) -> Due:
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


FILE = codec.encode(codec.decode(content(*TOKENS.values())))
WRITTEN = {one["id"]: one for one in json.loads(FILE)["tokens"]}
