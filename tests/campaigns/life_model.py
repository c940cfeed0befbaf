"""A model of tokens that knows nothing of the code: what may be made of them, who may use them, what stands in their file."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any, NamedTuple

from tests.campaigns.life import Order

YEAR = 366 * 86_400
MOST_OLDER = 5
ROLES = ("service", "member", "admin")
Lines = list[tuple[str, str | None]]
"""Actions and whose they are, as the audit log has them; None for a token that nobody was told of."""


class Refused(Exception):
    """What the model would not let happen."""


def ended(revoked_at: int | None, end: int | None, now: float) -> str:
    if revoked_at is not None:
        return "revoked"
    return "active" if end is None or now < end else "expired"


def least(values: Sequence[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


@dataclass
class Secret:
    """``valid_until`` is set once it has been replaced."""

    text: str
    rotated_at: int | None = None
    valid_until: int | None = None
    revoked_at: int | None = None
    last_used: int | None = None
    last_used_from: str | None = None
    uses: int = 0

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def shown(self) -> str:
        return self.text[: min(14, max(1, len(self.text) // 2))]

    def status(self, now: float) -> str:
        return ended(self.revoked_at, self.valid_until, now)


@dataclass
class Token:
    id: str
    name: str
    created_at: int
    secret: Secret
    owner: str | None = None
    role: str = "member"
    parent_id: str | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    models: list[str] | None = None
    rpm: int | None = None
    last_used: int | None = None
    uses: int = 0
    older: list[Secret] = field(default_factory=list)

    def status(self, now: float) -> str:
        return ended(self.revoked_at, self.expires_at, now)


class Rights(NamedTuple):
    """What a line of tokens may do."""

    role: str
    models: tuple[tuple[str, ...], ...]
    rpm: int | None
    expires_at: int | None
    is_test: bool

    def beyond(self, other: "Rights") -> set[str]:
        """In which fields this is more than the other."""
        covered = all(any(covers(theirs, mine) for mine in self.models) for theirs in other.models)
        found = {
            "role": ROLES.index(self.role) > ROLES.index(other.role),
            "prefix": other.is_test and not self.is_test,
            "models": not covered,
            "limits": other.rpm is not None and (self.rpm is None or self.rpm > other.rpm),
            "expires_at": least([self.expires_at, other.expires_at]) != self.expires_at,
        }
        return {name for name, is_more in found.items() if is_more}

    def common(self) -> list[str] | None:
        """What all lists let through; None for everything."""
        lists = [list(names) for names in self.models]
        return reduce(lambda some, others: [*dict.fromkeys(both(some, others))], lists) if lists else None


def both(some: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    """The narrower of two patterns; ``a*`` and ``*b`` share ``a*b``."""
    for one in some:
        for other in others:
            if covers([other], [one]):
                yield one
            elif covers([one], [other]):
                yield other
            elif {one[-1], other[0]} == {"*"} or {one[0], other[-1]} == {"*"}:
                yield (one + other if other[0] == "*" else other + one).replace("**", "*")


EVERYTHING = Rights("admin", (), None, None, False)


def covers(allowed: Sequence[str], wanted: Sequence[str]) -> bool:
    return all(any(fnmatchcase(name, pattern) for pattern in allowed) for name in wanted)


class Model:
    """What the changes so far add up to."""

    def __init__(self) -> None:
        self.tokens: dict[str, Token] = {}

    def apply(self, order: Order, now: float, made: Order, caller: str | None = None) -> Lines:
        """The lines that the audit log gets. ``made`` is what chance decided: the new id and secret. Raises Refused."""
        rights = EVERYTHING if caller is None else self._rights_of_caller(caller, order, now)
        return getattr(self, f"_{order['verb']}")(order, now, made, rights)

    def holder(self, text: str) -> tuple[Token, Secret] | None:
        found = (
            (token, one) for token in self.tokens.values() for one in (token.secret, *token.older) if one.text == text
        )
        return next(found, None)

    def secret_status(self, text: str, now: float) -> str:
        held = self.holder(text)
        if held is None:
            return "unknown"
        status = self.status(held[0], now)
        return held[1].status(now) if status == "active" else status

    def status(self, token: Token, now: float) -> str:
        line = self.above(token)
        states = [token.status(now), *("revoked" if one is None else one.status(now) for one in line)]
        if line[-1:] == [None] and states[0] == "active":
            return "revoked"
        return next((status for status in states if status != "active"), "active")

    def above(self, token: Token) -> list[Token | None]:
        """Its parents, the nearest first; ends in None where one is missing."""
        line: list[Token | None] = []
        while token.parent_id is not None:
            parent = self.tokens.get(token.parent_id)
            line.append(parent)
            if parent is None:
                break
            token = parent
        return line

    def below(self, token: Token) -> Iterator[Token]:
        for other in self.tokens.values():
            if other.parent_id == token.id:
                yield other
                yield from self.below(other)

    def rights(self, token: Token, secret: Secret | None = None) -> Rights:
        """With ``secret``: of whoever holds that one."""
        line = self.above(token)
        return rights_of([token, *(one for one in line if one)] if None not in line else [token], secret)

    def _rights_of_caller(self, caller: str, order: Order, now: float) -> Rights:
        held = self.holder(caller)
        if held is None or self.secret_status(caller, now) != "active":
            raise Refused
        rights = self.rights(*held)
        if rights.role == "service":
            raise Refused
        if order["verb"] in ("rotate", "patch") and self.rights(held[0]).beyond(rights):
            raise Refused
        return rights

    def _create(self, order: Order, now: float, made: Order, caller: Rights) -> Lines:
        spec = order["wish"]
        parent = None
        if spec.get("parent_id") is not None:
            parent = self.tokens.get(spec["parent_id"])
            if parent is None or self.status(parent, now) != "active":
                raise Refused
        giver = self.rights(parent) if parent else caller
        owner = parent.owner if parent else None
        token = Token(
            id=made.get("id", "?"),
            name=spec["name"],
            created_at=int(now),
            secret=Secret(made.get("secret") or spec.get("prefix") or ("sk_test_" if giver.is_test else "sk-")),
            owner=spec.get("owner", owner),
            role=spec.get("role", "service" if giver.role == "service" else "member"),
            parent_id=spec.get("parent_id"),
            expires_at=spec.get("expires_at", giver.expires_at),
            models=spec.get("models", giver.common()),
            rpm=spec.get("rpm", giver.rpm),
        )
        if rights_of([token]).beyond(caller) or (parent and (token.owner != owner or rights_of([token]).beyond(giver))):
            raise Refused
        self.tokens[token.id] = token
        return [("token.create", made.get("id"))]

    def _rotate(self, order: Order, now: float, made: Order, _caller: Rights) -> Lines:
        token, _ = self.find(order["reference"])
        grace, moment = order["grace"], int(now)
        older = [one for one in token.older if one.status(now) == "active"]
        is_full = grace > 0 and len(older) >= MOST_OLDER
        if self.status(token, now) != "active" or grace > YEAR or is_full:
            raise Refused
        old = token.secret
        old.rotated_at, old.valid_until = moment, least((moment + grace, token.expires_at))
        if grace == 0:
            for one in (*older, old):
                one.revoked_at = moment
        token.older = [*older, old]
        token.secret = Secret(made.get("secret", "?"))
        return [("token.rotate", token.id)]

    def _revoke(self, order: Order, now: float, _made: Order, _caller: Rights) -> Lines:
        token, secret = self.find(order["reference"])
        return self._end(token, secret, now)

    def _end(self, token: Token, secret: Secret | None, now: float) -> Lines:
        if secret is not None:
            if secret.status(now) != "active":
                return []
            secret.revoked_at = int(now)
            return [("token.end_secret", token.id)]
        dying = [one for one in (token, *self.below(token)) if one.revoked_at is None]
        for one in dying:
            one.revoked_at = int(now)
        return [("token.revoke", one.id) for one in dying]

    def _revoke_secret(self, order: Order, now: float, _made: Order, _caller: Rights) -> Lines:
        held = self.holder(order["secret"])
        return [] if held is None else self._end(held[0], None if held[1] is held[0].secret else held[1], now)

    def _delete(self, order: Order, now: float, _made: Order, _caller: Rights) -> Lines:
        token, _ = self.find(order["reference"])
        lines = [line for line in self._end(token, None, now) if line[1] != token.id]
        del self.tokens[token.id]
        return [*lines, ("token.delete", token.id)]

    def _patch(self, order: Order, _now: float, _made: Order, caller: Rights) -> Lines:
        token, values = self.tokens.get(order["reference"]), order["values"]
        if token is None:
            raise Refused
        after = replace(token, **values)
        changed = {"limits" if name == "rpm" else name for name in values}
        line = self.above(token)
        excess = rights_of([after]).beyond(caller)
        if line and None not in line:
            excess |= rights_of([after]).beyond(rights_of([one for one in line if one]))
        gets_owner = after.owner != token.owner
        if excess & changed or (gets_owner and token.parent_id is not None):
            raise Refused
        lines: Lines = [("token.update", token.id)] if after != token else []
        self.tokens[token.id] = after
        for child in self.below(token) if gets_owner else ():
            if child.owner != after.owner:
                child.owner = after.owner
                lines.append(("token.update", child.id))
        return lines

    def _import(self, order: Order, _now: float, _made: Order, _caller: Rights) -> Lines:
        known = {one.text for token in self.tokens.values() for one in (token.secret, *token.older)}
        added = [
            token
            for token in order["offered"]
            if token.id not in self.tokens and not known & {one.text for one in (token.secret, *token.older)}
        ]
        self.tokens |= {token.id: copy.deepcopy(token) for token in added}
        return [("token.import", token.id) for token in added]

    def _use(self, order: Order, now: float, _made: Order, _caller: Rights) -> Lines:
        self.used(order["id"], order["hash"], order["times"], int(now), order["address"])
        return []

    def used(self, token_id: str, digest: str | None, times: int, at: int, address: str | None) -> None:
        token = self.tokens.get(token_id)
        if token is None:
            return
        token.uses += times
        token.last_used = max(token.last_used or 0, at)
        for old in token.older:
            if old.hash == digest:
                old.uses += times
                if at >= (old.last_used or 0):
                    old.last_used, old.last_used_from = at, address

    def find(self, reference: str) -> tuple[Token, Secret | None]:
        """The token that a person means, and which of its older secrets. Raises Refused for none and for several."""
        if reference in self.tokens:
            return self.tokens[reference], None
        if held := self.holder(reference):
            return held[0], None if held[1] is held[0].secret else held[1]
        matches = [(token, None) for token in self.tokens.values() if token.name == reference]
        if "made-up" in reference or reference.endswith("..."):
            named = [token.id for token, _ in matches]
            matches += [one for one in self._begun(reference.removesuffix("...")) if one[0].id not in named]
        if len(matches) != 1:
            raise Refused
        return matches[0]

    def _begun(self, text: str) -> Iterator[tuple[Token, Secret | None]]:
        for token in self.tokens.values():
            for one in (token.secret, *reversed(token.older)):
                if text.startswith(one.shown) if len(one.shown) == 14 else text == one.shown:
                    yield token, None if one is token.secret else one
                    break

    def shape(self) -> dict[str, Any]:
        """What the file has to say of it."""
        return {token.id: shape_of(token) for token in self.tokens.values()}


def rights_of(line: Sequence[Token], secret: Secret | None = None) -> Rights:
    return Rights(
        role=min((token.role for token in line), key=ROLES.index),
        models=tuple(tuple(token.models) for token in line if token.models is not None),
        rpm=least([token.rpm for token in line]),
        expires_at=least([secret.valid_until if secret else None, *(token.expires_at for token in line)]),
        is_test=any(token.secret.text.startswith("sk_test_") for token in line),
    )


def shape_of(token: Token) -> dict[str, Any]:
    kept = (
        "name",
        "owner",
        "role",
        "parent_id",
        "created_at",
        "expires_at",
        "revoked_at",
        "last_used",
        "models",
        "rpm",
    )
    return {
        **{name: getattr(token, name) for name in kept},
        "usage_count": token.uses,
        "hash": token.secret.hash,
        "prefix": token.secret.shown,
        "previous_secrets": [
            {
                "hash": old.hash,
                "prefix": old.shown,
                "rotated_at": old.rotated_at,
                "valid_until": old.valid_until,
                "revoked_at": old.revoked_at,
                "last_used": old.last_used,
                "last_used_from": old.last_used_from,
                "usage_count": old.uses,
            }
            for old in token.older
        ],
    }
