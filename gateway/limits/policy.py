"""The limits of a token as values: read from JSON, written to it, compared. Pure.

Money is counted in micro-dollars, whole numbers: sums of binary fractions drift.
"""

import re
from collections.abc import Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any

import msgspec

_BUDGET = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?(?:/(day|week|month))?")
_COUNTS = ("rpm", "tpm", "max_parallel")
_LARGEST_COUNT = 10**12
_MOST_INSIDE: Mapping[tuple[str | None, str | None], int] = MappingProxyType(
    {
        ("day", "week"): 7,
        ("day", "month"): 31,
        ("week", "month"): 6,  # a month of 31 days can touch six calendar weeks
        ("month", "week"): 2,  # and a week two months
    }
)
"""How many of the first window one of the second can touch, where that is more than one."""


class LimitError(ValueError):
    """A limit that does not fit its rule; ``field`` is a path such as ``limits.rpm``."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"`{field}` {rule}")
        self.field = field
        self.rule = rule


class Budget(msgspec.Struct, frozen=True):
    """Money for each calendar window (UTC), or in all where ``per`` is None."""

    micro_usd: int
    per: str | None = None

    def __str__(self) -> str:
        """``10``, ``2.5/day``: the form that is read."""
        whole, part = divmod(self.micro_usd, 1_000_000)
        amount = f"{whole}.{part:06d}".rstrip("0").rstrip(".")
        return amount if self.per is None else f"{amount}/{self.per}"

    def is_within(self, other: "Budget") -> bool:
        """Whether whoever keeps to this keeps to the other, too."""
        if self.per is not None and other.per is None:
            return False  # begun anew for ever, it passes every sum
        times = 1 if self.per is None else _MOST_INSIDE.get((self.per, other.per), 1)
        return self.micro_usd * times <= other.micro_usd


def _within_both(one: Budget, other: Budget) -> Budget:
    """The larger budget that keeps to both, as far as one budget can say it."""
    if one.is_within(other):
        return one
    if other.is_within(one):
        return other
    for short, long in ((one, other), (other, one)):
        share = long.micro_usd // _MOST_INSIDE.get((short.per, long.per), long.micro_usd + 1)
        if share > 0:
            return Budget(min(short.micro_usd, share), short.per)
    return Budget(min(one.micro_usd, other.micro_usd))


class LimitSet(msgspec.Struct, frozen=True, kw_only=True):
    """Requests and model tokens a minute, requests at a time, money. None: not limited."""

    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None
    budget: Budget | None = None

    def is_within(self, other: "LimitSet") -> bool:
        """Whether each of the other's limits is here, and not above it."""
        for name in _COUNTS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs is not None and (mine is None or mine > theirs):
                return False
        return other.budget is None or (self.budget is not None and self.budget.is_within(other.budget))

    def and_also(self, other: "LimitSet") -> "LimitSet":
        """What keeps to both."""
        counts = {
            name: min(
                (limit for limit in (getattr(self, name), getattr(other, name)) if limit is not None), default=None
            )
            for name in _COUNTS
        }
        budgets = [budget for budget in (self.budget, other.budget) if budget is not None]
        return LimitSet(**counts, budget=reduce(_within_both, budgets) if budgets else None)

    def as_json(self) -> dict[str, Any]:
        """Only what is set."""
        counts = {name: value for name in _COUNTS if (value := getattr(self, name)) is not None}
        return counts if self.budget is None else {**counts, "budget": str(self.budget)}


NO_LIMITS = LimitSet()


def read_limits(value: Any) -> LimitSet | None:
    """Raises LimitError; also for a name that is not known, because a limit that nobody understands limits nothing."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise LimitError("limits", "must be an object or null")
    if unknown := [name for name in value if name not in (*_COUNTS, "budget")]:
        raise LimitError(f"limits.{unknown[0]}", f"is not one of {', '.join(_COUNTS)}, budget")
    counts = {name: _count(name, value.get(name)) for name in _COUNTS}
    found = LimitSet(**counts, budget=_budget(value.get("budget")))
    return None if found == NO_LIMITS else found


def _count(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST_COUNT:
        raise LimitError(f"limits.{name}", f"must be a whole number, 1 to {_LARGEST_COUNT}")
    return value


def _budget(value: Any) -> Budget | None:
    if value is None:
        return None
    found = _BUDGET.fullmatch(value) if isinstance(value, str) else None
    micro_usd = int(found[1]) * 1_000_000 + int((found[2] or "").ljust(6, "0")) if found else 0
    if found is None or micro_usd == 0:
        raise LimitError("limits.budget", "must be a text such as 10, 2.50/day, 20/week or 100/month, in USD")
    return Budget(micro_usd, found[3])
