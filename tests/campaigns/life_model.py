"""A model of tokens that knows nothing of the code: which changes are allowed, who may use them, and what their file contains."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any, NamedTuple

from tests.campaigns.life import Command

YEAR = 366 * 86_400
MAX_PREVIOUS = 5
ROLES = ("service", "member", "admin")
Lines = list[tuple[str, str | None]]
"""Actions and whose they are, as the audit log has them; None for a token whose id was never answered."""


class Refused(Exception):
    """The model refuses a change."""


def status_at(revoked_at: int | None, end: int | None, now: float) -> str:
    if revoked_at is not None:
        return "revoked"
    return "active" if end is None or now < end else "expired"


def minimum(values: Sequence[int | None]) -> int | None:
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
    def display_prefix(self) -> str:
        return self.text[: min(14, max(1, len(self.text) // 2))]

    def status(self, now: float) -> str:
        return status_at(self.revoked_at, self.valid_until, now)


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
    previous: list[Secret] = field(default_factory=list)

    def status(self, now: float) -> str:
        return status_at(self.revoked_at, self.expires_at, now)


class Rights(NamedTuple):
    """The rights of a token and its chain of parents."""

    role: str
    models: tuple[tuple[str, ...], ...]
    rpm: int | None
    expires_at: int | None
    is_test: bool

    def excess_over(self, other: "Rights") -> set[str]:
        """Returns the fields in which this is more than the other."""
        covered = all(any(covers(theirs, mine) for mine in self.models) for theirs in other.models)
        found = {
            "role": ROLES.index(self.role) > ROLES.index(other.role),
            "prefix": other.is_test and not self.is_test,
            "models": not covered,
            "limits": other.rpm is not None and (self.rpm is None or self.rpm > other.rpm),
            "expires_at": minimum([self.expires_at, other.expires_at]) != self.expires_at,
        }
        return {name for name, is_more in found.items() if is_more}

    def common(self) -> list[str] | None:
        """Returns the models that all lists allow; None for all models."""
        lists = [list(names) for names in self.models]
        return reduce(lambda some, others: [*dict.fromkeys(intersect(some, others))], lists) if lists else None


def intersect(some: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    """Yields the narrower of two patterns; ``a*`` and ``*b`` share ``a*b``."""
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
    """The tokens after all changes so far."""

    def __init__(self) -> None:
        self.tokens: dict[str, Token] = {}

    def apply(self, command: Command, now: float, made: Command, caller: str | None = None) -> Lines:
        """Makes a change and returns its lines of the audit log. ``made`` has the new id and secret. Raises Refused."""
        rights = EVERYTHING if caller is None else self._rights_of_caller(caller, command, now)
        return getattr(self, f"_{command['verb']}")(command, now, made, rights)

    def find_secret(self, text: str) -> tuple[Token, Secret] | None:
        found = (
            (token, one)
            for token in self.tokens.values()
            for one in (token.secret, *token.previous)
            if one.text == text
        )
        return next(found, None)

    def secret_status(self, text: str, now: float) -> str:
        match = self.find_secret(text)
        if match is None:
            return "unknown"
        status = self.status(match[0], now)
        return match[1].status(now) if status == "active" else status

    def status(self, token: Token, now: float) -> str:
        chain = self.parents_of(token)
        states = [token.status(now), *("revoked" if one is None else one.status(now) for one in chain)]
        if chain[-1:] == [None] and states[0] == "active":
            return "revoked"
        return next((status for status in states if status != "active"), "active")

    def parents_of(self, token: Token) -> list[Token | None]:
        """Returns the parents, the nearest first; the last one is None where a parent is missing."""
        chain: list[Token | None] = []
        while token.parent_id is not None:
            parent = self.tokens.get(token.parent_id)
            chain.append(parent)
            if parent is None:
                break
            token = parent
        return chain

    def descendants_of(self, token: Token) -> Iterator[Token]:
        for other in self.tokens.values():
            if other.parent_id == token.id:
                yield other
                yield from self.descendants_of(other)

    def rights(self, token: Token, secret: Secret | None = None) -> Rights:
        """Returns the rights of a token; with ``secret``, those of this secret of it."""
        chain = self.parents_of(token)
        return rights_of([token, *(one for one in chain if one)] if None not in chain else [token], secret)

    def _rights_of_caller(self, caller: str, command: Command, now: float) -> Rights:
        match = self.find_secret(caller)
        if match is None or self.secret_status(caller, now) != "active":
            raise Refused
        rights = self.rights(*match)
        if rights.role == "service":
            raise Refused
        if command["verb"] in ("rotate", "patch") and self.rights(match[0]).excess_over(rights):
            raise Refused
        return rights

    def _create(self, command: Command, now: float, made: Command, caller: Rights) -> Lines:
        spec = command["spec"]
        parent = None
        if spec.get("parent_id") is not None:
            parent = self.tokens.get(spec["parent_id"])
            if parent is None or self.status(parent, now) != "active":
                raise Refused
        defaults = self.rights(parent) if parent else caller
        owner = parent.owner if parent else None
        token = Token(
            id=made.get("id", "?"),
            name=spec["name"],
            created_at=int(now),
            secret=Secret(made.get("secret") or spec.get("prefix") or ("sk_test_" if defaults.is_test else "sk-")),
            owner=spec.get("owner", owner),
            role=spec.get("role", "service" if defaults.role == "service" else "member"),
            parent_id=spec.get("parent_id"),
            expires_at=spec.get("expires_at", defaults.expires_at),
            models=spec.get("models", defaults.common()),
            rpm=spec.get("rpm", defaults.rpm),
        )
        if rights_of([token]).excess_over(caller) or (
            parent and (token.owner != owner or rights_of([token]).excess_over(defaults))
        ):
            raise Refused
        self.tokens[token.id] = token
        return [("token.create", made.get("id"))]

    def _rotate(self, command: Command, now: float, made: Command, _caller: Rights) -> Lines:
        token, _ = self.find(command["reference"])
        grace, moment = command["grace"], int(now)
        previous = [one for one in token.previous if one.status(now) == "active"]
        is_full = grace > 0 and len(previous) >= MAX_PREVIOUS
        if self.status(token, now) != "active" or grace > YEAR or is_full:
            raise Refused
        old = token.secret
        old.rotated_at, old.valid_until = moment, minimum((moment + grace, token.expires_at))
        if grace == 0:
            for one in (*previous, old):
                one.revoked_at = moment
        token.previous = [*previous, old]
        token.secret = Secret(made.get("secret", "?"))
        return [("token.rotate", token.id)]

    def _revoke(self, command: Command, now: float, _made: Command, _caller: Rights) -> Lines:
        token, secret = self.find(command["reference"])
        return self._end(token, secret, now)

    def _end(self, token: Token, secret: Secret | None, now: float) -> Lines:
        if secret is not None:
            if secret.status(now) != "active":
                return []
            secret.revoked_at = int(now)
            return [("token.end_secret", token.id)]
        active = [one for one in (token, *self.descendants_of(token)) if one.revoked_at is None]
        for one in active:
            one.revoked_at = int(now)
        return [("token.revoke", one.id) for one in active]

    def _revoke_secret(self, command: Command, now: float, _made: Command, _caller: Rights) -> Lines:
        match = self.find_secret(command["secret"])
        return [] if match is None else self._end(match[0], None if match[1] is match[0].secret else match[1], now)

    def _delete(self, command: Command, now: float, _made: Command, caller: Rights) -> Lines:
        token, _ = self.find(command["reference"])
        if caller.role != "admin":
            tree = [token.id, *(one.id for one in self.descendants_of(token))]
            for token_id in tree:
                del self.tokens[token_id]
            return [("token.delete", token_id) for token_id in reversed(tree)]
        lines = [line for line in self._end(token, None, now) if line[1] != token.id]
        del self.tokens[token.id]
        return [*lines, ("token.delete", token.id)]

    def _patch(self, command: Command, _now: float, _made: Command, caller: Rights) -> Lines:
        token, values = self.tokens.get(command["reference"]), command["values"]
        if token is None:
            raise Refused
        after = replace(token, **values)
        changed = {"limits" if name == "rpm" else name for name in values}
        chain = self.parents_of(token)
        excess = rights_of([after]).excess_over(caller)
        if chain and None not in chain:
            excess |= rights_of([after]).excess_over(rights_of([one for one in chain if one]))
        gets_owner = after.owner != token.owner
        if excess & changed or (gets_owner and token.parent_id is not None):
            raise Refused
        lines: Lines = [("token.update", token.id)] if after != token else []
        self.tokens[token.id] = after
        for child in self.descendants_of(token) if gets_owner else ():
            if child.owner != after.owner:
                child.owner = after.owner
                lines.append(("token.update", child.id))
        return lines

    def _import(self, command: Command, _now: float, _made: Command, _caller: Rights) -> Lines:
        known = {one.text for token in self.tokens.values() for one in (token.secret, *token.previous)}
        added = [
            token
            for token in command["offered"]
            if token.id not in self.tokens and not known & {one.text for one in (token.secret, *token.previous)}
        ]
        self.tokens |= {token.id: copy.deepcopy(token) for token in added}
        return [("token.import", token.id) for token in added]

    def _use(self, command: Command, now: float, _made: Command, _caller: Rights) -> Lines:
        self.add_uses(command["id"], command["hash"], command["times"], int(now), command["address"])
        return []

    def add_uses(self, token_id: str, digest: str | None, times: int, at: int, address: str | None) -> None:
        token = self.tokens.get(token_id)
        if token is None:
            return
        token.uses += times
        token.last_used = max(token.last_used or 0, at)
        for old in token.previous:
            if old.hash == digest:
                old.uses += times
                if at >= (old.last_used or 0):
                    old.last_used, old.last_used_from = at, address

    def find(self, reference: str) -> tuple[Token, Secret | None]:
        """Returns the token of a reference, and which of its previous secrets it names.

        Raises Refused for none and for several.
        """
        if reference in self.tokens:
            return self.tokens[reference], None
        if match := self.find_secret(reference):
            return match[0], None if match[1] is match[0].secret else match[1]
        matches = [(token, None) for token in self.tokens.values() if token.name == reference]
        if "made-up" in reference or reference.endswith("..."):
            named = [token.id for token, _ in matches]
            matches += [one for one in self._with_prefix(reference.removesuffix("...")) if one[0].id not in named]
        if len(matches) != 1:
            raise Refused
        return matches[0]

    def _with_prefix(self, text: str) -> Iterator[tuple[Token, Secret | None]]:
        for token in self.tokens.values():
            for one in (token.secret, *reversed(token.previous)):
                if text.startswith(one.display_prefix) if len(one.display_prefix) == 14 else text == one.display_prefix:
                    yield token, None if one is token.secret else one
                    break

    def stored_form(self) -> dict[str, Any]:
        """Returns what the file must contain."""
        return {token.id: stored_form_of(token) for token in self.tokens.values()}


def rights_of(chain: Sequence[Token], secret: Secret | None = None) -> Rights:
    return Rights(
        role=min((token.role for token in chain), key=ROLES.index),
        models=tuple(tuple(token.models) for token in chain if token.models is not None),
        rpm=minimum([token.rpm for token in chain]),
        expires_at=minimum([secret.valid_until if secret else None, *(token.expires_at for token in chain)]),
        is_test=any(token.secret.text.startswith("sk_test_") for token in chain),
    )


def stored_form_of(token: Token) -> dict[str, Any]:
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
        "prefix": token.secret.display_prefix,
        "previous_secrets": [
            {
                "hash": old.hash,
                "prefix": old.display_prefix,
                "rotated_at": old.rotated_at,
                "valid_until": old.valid_until,
                "revoked_at": old.revoked_at,
                "last_used": old.last_used,
                "last_used_from": old.last_used_from,
                "usage_count": old.uses,
            }
            for old in token.previous
        ],
    }
