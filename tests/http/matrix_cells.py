"""The cells of the matrix of rights: what each caller asks for, and what is due. See test_token_matrix."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.core.clock import to_iso
from tests.http.matrix_model import (
    A_DAY,
    ANN,
    BOB,
    CALLERS,
    HALF_AN_HOUR,
    LIMITS,
    MISSING,
    MODELS,
    NOBODY,
    OBJECTS,
    ROLES,
    TOKENS,
    Cell,
    Due,
    Power,
    Requester,
    allowed,
    below,
    due_to,
    ends,
    excess,
    is_dead,
    own_power,
    power,
    refused,
)
from tests.support.tokens import NOW


def reads(caller: Requester) -> Iterator[Cell]:
    for key, path in itertools.product(OBJECTS, ("", "/usage")):
        due = due_to(caller, "read", key) or allowed(set(), shown=lambda shown, key=key: shown["id"] == key)
        yield Cell(caller, "GET", f"/api/tokens/{key}{path}", None, due)


def revokes(caller: Requester) -> Iterator[Cell]:
    for key in OBJECTS:
        due = due_to(caller, "revoke", key) or allowed(ends({key} | below(key)))
        yield Cell(caller, "POST", f"/api/tokens/{key}/revoke", None, due)


def deletes(caller: Requester) -> Iterator[Cell]:
    for key in OBJECTS:
        gone = {(below_it, "*") for below_it in below(key)} if not caller.is_admin else ends(below(key))
        due = due_to(caller, "delete", key) or allowed({(key, "*")} | gone)
        yield Cell(caller, "DELETE", f"/api/tokens/{key}", None, due)


def rotates(caller: Requester) -> Iterator[Cell]:
    changed = ("prefix", "hash", "previous_secrets")
    for key in OBJECTS:
        due = due_to(caller, "rotate", key) or allowed({(key, field) for field in changed})
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
    is_given = caller.is_admin or key in below(caller.key or "")
    if field == "limits" and field in excess(wanted, own_power(before)) and not is_given:
        return refused(403, field)
    if field in excess(wanted, power(TOKENS, before["parent_id"])):
        return refused(400, field)
    touched = {key} | (below(key) if field == "owner" else set())
    default = {"role": "member", "metadata": {}}.get(field)
    changed = {(one, field) for one in touched if TOKENS[one].get(field, default) != value}
    return allowed(changed, shown=lambda shown: shown[field] == value)


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


SPECS: list[dict[str, Any]] = [
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
    for spec in SPECS:
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
    wanted = requested_power(spec, given)
    if owner != due and not caller.is_admin:
        return refused(403, "owner")
    if more := excess(wanted, caller.power):
        return refused(403, *more)
    if owner != due and parent:
        return refused(400, "owner")
    if more := excess(wanted, given):
        return refused(400, *more)
    return allowed({("new", "*")}, 201, lambda shown: (shown["parent_id"], shown["owner"]) == (parent, owner))


def requested_power(spec: Mapping[str, Any], given: Power) -> Power:
    """What the new token would have: what is not asked for comes from the parent, or from the caller; a member is enough."""
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
            told = allowed(set(), shown=lambda shown, name=name, key=key: shown[name]["hasKey"] == bool(key))
            due = refused(401) if caller.is_refused else told if is_theirs else refused(404)
            yield Cell(caller, "GET", f"/api/user/{path}/{email}", None, due)
        gone = allowed(ending) if is_theirs and key else refused(404)
        yield Cell(caller, "DELETE", f"/api/user/key/{email}", None, may_not or gone)
        is_kept = key is not None and not is_dead(key) and not excess(power(TOKENS, key), caller.power)
        rotated = (
            {(key, field) for field in ("name", "prefix", "hash", "previous_secrets")} if is_kept and key else set()
        )
        changes = rotated | ends(below(key)) if is_kept and key else {("new", "*"), *ending}
        made = refused(403, "email") if not is_theirs else allowed(changes)
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
        told = allowed(set(), shown=lambda shown, seen=seen: [one["id"] for one in shown["tokens"]] == seen)
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

    yield Cell(caller, "GET", "/api/me", None, refused(401) if caller.is_refused else allowed(set(), shown=shown))


AREAS = (reads, revokes, deletes, rotates, updates, mass_assignments, creates, user_keys, lists, me)
TABLE = {area.__name__: [cell for name in CALLERS for cell in area(Requester(name))] for area in AREAS}
