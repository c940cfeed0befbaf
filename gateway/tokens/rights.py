"""Computes how much a token may do, and whether that is more than another may do. Pure.

Nobody can give more than they have: neither to a child, nor to a token they change or get a new secret of.
"""

from collections.abc import Sequence
from functools import reduce

import msgspec

from gateway.limits.config import LimitSet
from gateway.tokens import secret
from gateway.tokens.models import PreviousSecret, Role, SecretMatch, TokenRecord, allows_model


class Rights(msgspec.Struct, frozen=True):
    """What a chain of records may do: every list of models has to allow a model, every set of limits holds.

    ``expires_at`` is in seconds since the epoch; None means never.
    """

    role: Role
    models: tuple[tuple[str, ...], ...] = ()
    limits: tuple[LimitSet, ...] = ()
    expires_at: int | None = None
    is_test: bool = False

    def fields_exceeding(self, other: "Rights") -> list[str]:
        """Returns the fields in which this goes beyond the other, by the names that requests have for them."""
        exceeding = []
        if self.role.rank > other.role.rank:
            exceeding.append("role")
        if other.is_test and not self.is_test:
            exceeding.append("prefix")
        if not all(any(_covers(theirs, ours) for ours in self.models) for theirs in other.models):
            exceeding.append("models")
        if not all(any(ours.is_within(theirs) for ours in self.limits) for theirs in other.limits):
            exceeding.append("limits")
        if other.expires_at is not None and (self.expires_at is None or self.expires_at > other.expires_at):
            exceeding.append("expires_at")
        return exceeding

    @property
    def tightest_limits(self) -> LimitSet | None:
        """One set of limits that keeps to all of them; None for no limit."""
        return reduce(LimitSet.and_also, self.limits) if self.limits else None

    @property
    def common_models(self) -> tuple[str, ...] | None:
        """Patterns that every list lets through; None for all models."""
        return reduce(_intersect, self.models) if self.models else None


EVERYTHING = Rights(Role.ADMIN)
"""The rights of whoever has no token and needs none: the environment key, the command line, open mode."""


def rights_of_chain(chain: Sequence[TokenRecord], previous: PreviousSecret | None = None) -> Rights:
    """Returns the rights of a record with its parents; the record comes first, and there is at least that.

    ``previous`` is the secret that is used, if a rotation has replaced it: it gives nothing that outlasts it.
    """
    ends = [record.expires_at for record in chain if record.expires_at is not None]
    if previous is not None:
        ends.append(previous.valid_until)
    return Rights(
        role=min((record.role for record in chain), key=lambda role: role.rank),
        models=tuple(record.models for record in chain if record.models is not None),
        limits=tuple(record.limits for record in chain if record.limits is not None),
        expires_at=min(ends, default=None),
        is_test=any(secret.kind(record.prefix) == secret.TEST for record in chain),
    )


def rights_of(match: SecretMatch, parents: Sequence[TokenRecord] | None) -> Rights:
    """Returns the rights of whoever has that secret. ``parents`` are its token's, the nearest first."""
    return rights_of_chain((match.record, *(parents or ())), match.previous)


def _intersect(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns for what both lists let through; where two patterns cross in more than one place, for less than that."""
    crossings = (_crossing(one, other) for one in some for other in others)
    return tuple(dict.fromkeys(pattern for pattern in crossings if pattern is not None))


def _crossing(one: str, other: str) -> str | None:
    """One pattern for what two let through: ``gpt-4*`` and ``*-mini`` cross in ``gpt-4*-mini``."""
    if allows_model((other,), one):
        return one
    if allows_model((one,), other):
        return other
    if one.count("*") != 1 or other.count("*") != 1:
        return None
    (head, tail), (other_head, other_tail) = one.split("*"), other.split("*")
    heads, tails = sorted((head, other_head)), sorted((tail, other_tail), key=len)
    crosses = heads[1].startswith(heads[0]) and tails[1].endswith(tails[0])
    return f"{heads[1]}*{tails[1]}" if crosses else None


def _covers(allowed: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether every model that ``wanted`` lets through is let through by ``allowed``, too.

    A pattern taken as a name fits another pattern only if the other has a star wherever this one has.
    """
    return all(allows_model(allowed, pattern) for pattern in wanted)
