"""How much a token may do, and whether that is more than somebody else may. Pure.

Nobody can give more than they have: neither to a child, nor to a token they change or get a new secret of.
"""

from collections.abc import Sequence
from functools import reduce

import msgspec

from gateway.limits.config import LimitSet
from gateway.tokens import secret
from gateway.tokens.hierarchy import SecretMatch, TokenHierarchy
from gateway.tokens.models import PreviousSecret, Role, TokenRecord, allows_model


class Rights(msgspec.Struct, frozen=True):
    """What follows from a line of records: every list of models has to allow a model, every set of limits holds."""

    role: Role
    models: tuple[tuple[str, ...], ...] = ()
    limits: tuple[LimitSet, ...] = ()
    expires_at: int | None = None
    is_test: bool = False

    def fields_exceeding(self, other: "Rights") -> list[str]:
        """The fields in which this goes beyond the other, by the names that requests have for them."""
        found = []
        if self.role.rank > other.role.rank:
            found.append("role")
        if other.is_test and not self.is_test:
            found.append("prefix")
        if not all(any(_covers(theirs, mine) for mine in self.models) for theirs in other.models):
            found.append("models")
        if not all(any(mine.is_within(theirs) for mine in self.limits) for theirs in other.limits):
            found.append("limits")
        if other.expires_at is not None and (self.expires_at is None or self.expires_at > other.expires_at):
            found.append("expires_at")
        return found

    @property
    def tightest_limits(self) -> LimitSet | None:
        """One set that keeps to all of them."""
        return reduce(LimitSet.and_also, self.limits) if self.limits else None

    @property
    def common_models(self) -> tuple[str, ...] | None:
        """Patterns that every list lets through; None for all models."""
        return reduce(_shared, self.models) if self.models else None


EVERYTHING = Rights(Role.ADMIN)


def rights_of_chain(line: Sequence[TokenRecord], previous: PreviousSecret | None = None) -> Rights:
    """Of a record and its parents. A secret that has been replaced gives nothing that outlasts it."""
    ends = [record.expires_at for record in line if record.expires_at is not None]
    if previous is not None:
        ends.append(previous.valid_until)
    return Rights(
        role=min((record.role for record in line), key=lambda role: role.rank),
        models=tuple(record.models for record in line if record.models is not None),
        limits=tuple(record.limits for record in line if record.limits is not None),
        expires_at=min(ends, default=None),
        is_test=any(secret.kind(record.prefix) == secret.TEST for record in line),
    )


def rights_of(view: TokenHierarchy, match: SecretMatch) -> Rights:
    """Of whoever holds that secret."""
    return rights_of_chain((match.record, *(view.parents(match.record) or ())), match.previous)


def _shared(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns for what both lists let through; where two patterns cross in more than one place, for less than that."""
    shared = (_crossing(one, other) for one in some for other in others)
    return tuple(dict.fromkeys(pattern for pattern in shared if pattern is not None))


def _crossing(one: str, other: str) -> str | None:
    """``gpt-4*`` and ``*-mini`` cross in ``gpt-4*-mini``."""
    if allows_model((other,), one):
        return one
    if allows_model((one,), other):
        return other
    if one.count("*") != 1 or other.count("*") != 1:
        return None
    (head, tail), (other_head, other_tail) = one.split("*"), other.split("*")
    heads, tails = sorted((head, other_head), key=len), sorted((tail, other_tail), key=len)
    fits = heads[1].startswith(heads[0]) and tails[1].endswith(tails[0])
    return f"{heads[1]}*{tails[1]}" if fits else None


def _covers(allowed: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether every model that ``wanted`` lets through is let through by ``allowed``, too.

    A pattern taken as a text fits another pattern only if the other has a star wherever this one has.
    """
    return all(allows_model(allowed, pattern) for pattern in wanted)
