"""Reads, writes and compares the limits of a token. Pure.

Money is in whole micro-dollars, because sums of binary fractions are not exact.
"""

import re
from collections.abc import Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any

import msgspec

from gateway.core import wildcards
from gateway.core.money import MICRO_USD, format_usd
from gateway.core.validators import is_printable, is_whole_number

_BUDGET = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?(?:/(day|week|month))?")
_COUNTS = ("rpm", "tpm", "max_parallel")
_MAX_COUNT = 10**12
_MAX_PATTERNS = 100
_MAX_PATTERN_LENGTH = 256
_MAX_OVERLAPS: Mapping[tuple[str | None, str | None], int] = MappingProxyType(
    {
        ("day", "week"): 7,
        ("day", "month"): 31,
        ("week", "month"): 6,  # a month of 31 days can overlap six calendar weeks
        ("month", "week"): 2,  # and a week two months
    }
)
"""With how many windows of the first length one window of the second can overlap, where that is more than one."""


class LimitError(ValueError):
    """Says that a limit is invalid. ``field`` is a path such as ``limits.rpm``; ``rule`` is what the field must be."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"`{field}` {rule}")
        self.field = field
        self.rule = rule


class Budget(msgspec.Struct, frozen=True):
    """Allows an amount of money for each ``day``, ``week`` or ``month`` (UTC), or in all where ``per`` is None."""

    micro_usd: int
    per: str | None = None

    def __str__(self) -> str:
        """Returns the form that is read: ``10``, ``2.5/day``."""
        amount = format_usd(self.micro_usd)
        return amount if self.per is None else f"{amount}/{self.per}"

    def is_within(self, other: "Budget") -> bool:
        """Returns whether spending that keeps to this budget always keeps to the other one, too."""
        if self.per is not None and other.per is None:
            return False  # it is renewed again and again, so the sum has no bound
        windows = 1 if self.per is None else _MAX_OVERLAPS.get((self.per, other.per), 1)
        return self.micro_usd * windows <= other.micro_usd


def _within_both(one: Budget, other: Budget) -> Budget:
    """Returns a budget that is within both. It is the largest, except where no single budget can express that."""
    if one.is_within(other):
        return one
    if other.is_within(one):
        return other
    for short, long in ((one, other), (other, one)):
        overlaps = _MAX_OVERLAPS.get((short.per, long.per))
        if overlaps is not None and (share := long.micro_usd // overlaps) > 0:
            return Budget(min(short.micro_usd, share), short.per)
    return Budget(min(one.micro_usd, other.micro_usd))


class LimitSet(msgspec.Struct, frozen=True, kw_only=True):
    """Limits requests per minute, model tokens per minute, requests at a time, and money. None: not limited.

    ``models`` adds limits for the models that match a pattern. All models that match one pattern share its limits.
    """

    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None
    budget: Budget | None = None
    models: tuple[tuple[str, "LimitSet"], ...] = ()

    def is_within(self, other: "LimitSet") -> bool:
        """Returns whether every limit of the other set is also set here, to the same value or a lower one."""
        if not self._counts_are_within(other):
            return False
        if other.budget is not None and (self.budget is None or not self.budget.is_within(other.budget)):
            return False
        return all(self._for_pattern(pattern).is_within(theirs) for pattern, theirs in other.models)

    def narrows(self, earlier: "LimitSet") -> bool:
        """Returns whether this can replace the earlier set without giving anything more, not even a counter that begins anew.

        Every earlier limit is still there for the same pattern and the same window, at most as large. Limits may be added.
        """
        per = self.budget.per if self.budget is not None else None
        if earlier.budget is not None and (
            per != earlier.budget.per or not self.is_within(LimitSet(budget=earlier.budget))
        ):
            return False
        mine = {wildcards.canonical(pattern): limits for pattern, limits in self.models}
        return self._counts_are_within(earlier) and all(
            mine.get(wildcards.canonical(pattern), UNLIMITED).narrows(limits) for pattern, limits in earlier.models
        )

    def _counts_are_within(self, other: "LimitSet") -> bool:
        known = [(getattr(self, name), limit) for name in _COUNTS if (limit := getattr(other, name)) is not None]
        return all(mine is not None and mine <= theirs for mine, theirs in known)

    def _for_pattern(self, pattern: str) -> "LimitSet":
        """Returns the limits that hold here for all models of a pattern together."""
        covering = (limits for mine, limits in self.models if wildcards.matches(mine, pattern))
        return reduce(LimitSet.and_also, covering, self)

    def and_also(self, other: "LimitSet") -> "LimitSet":
        """Returns a set that is within both."""
        counts = {
            name: min(
                (limit for limit in (getattr(self, name), getattr(other, name)) if limit is not None), default=None
            )
            for name in _COUNTS
        }
        budgets = [budget for budget in (self.budget, other.budget) if budget is not None]
        models = dict(self.models)
        for pattern, theirs in other.models:
            models[pattern] = models[pattern].and_also(theirs) if pattern in models else theirs
        budget = reduce(_within_both, budgets) if budgets else None
        return LimitSet(**counts, budget=budget, models=tuple(models.items()))

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON object that ``read_limits`` reads, with only what is set."""
        found: dict[str, Any] = {name: value for name in _COUNTS if (value := getattr(self, name)) is not None}
        if self.budget is not None:
            found["budget"] = str(self.budget)
        if self.models:
            found["models"] = {pattern: limits.as_json() for pattern, limits in self.models}
        return found


UNLIMITED = LimitSet()


def read_limits(value: Any) -> LimitSet | None:
    """Reads the limits of a token from JSON. None, and a set that limits nothing, give None.

    Raises LimitError; also for an unknown name, because a misspelled limit would limit nothing.
    """
    if value is None:
        return None
    found = _limit_set("limits", value, (*_COUNTS, "budget", "models"))
    return None if found == UNLIMITED else found


def _limit_set(field: str, value: Any, known: tuple[str, ...]) -> LimitSet:
    if not isinstance(value, dict):
        raise LimitError(field, "must be an object or null" if field == "limits" else "must be an object")
    if unknown := [name for name in value if name not in known]:
        raise LimitError(f"{field}.{unknown[0]}", f"is not one of {', '.join(known)}")
    counts = {name: _count(f"{field}.{name}", value.get(name)) for name in _COUNTS}
    budget = _budget(f"{field}.budget", value.get("budget"))
    return LimitSet(**counts, budget=budget, models=_models(value.get("models")))


def _models(value: Any) -> tuple[tuple[str, LimitSet], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > _MAX_PATTERNS:
        raise LimitError("limits.models", f"must be an object of at most {_MAX_PATTERNS} model names or patterns")
    found: dict[str, tuple[str, LimitSet]] = {}
    for pattern, limits in value.items():
        if not is_printable(pattern, _MAX_PATTERN_LENGTH):
            rule = f"must be a printable string of 1 to {_MAX_PATTERN_LENGTH} characters"
            raise LimitError("limits.models", f"has an invalid model name: it {rule}")
        read = _limit_set(f"limits.models.{pattern}", limits, (*_COUNTS, "budget"))
        name = wildcards.canonical(pattern)
        if name in found:
            found[name] = (found[name][0], found[name][1].and_also(read))
        elif read != UNLIMITED:
            found[name] = (pattern, read)
    return tuple(found.values())


def _count(field: str, value: Any) -> int | None:
    if value is None:
        return None
    if not is_whole_number(value, 1, _MAX_COUNT):
        raise LimitError(field, f"must be a whole number, 1 to {_MAX_COUNT}")
    return value


def _budget(field: str, value: Any) -> Budget | None:
    if value is None:
        return None
    found = _BUDGET.fullmatch(value) if isinstance(value, str) else None
    micro_usd = int(found[1]) * MICRO_USD + int((found[2] or "").ljust(6, "0")) if found else 0
    if found is None or micro_usd == 0:
        raise LimitError(field, "must be a string such as 10, 2.50/day, 20/week or 100/month, in USD")
    return Budget(micro_usd, found[3])
