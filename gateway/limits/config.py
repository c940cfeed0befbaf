"""The limits of a token as values: read from JSON, written to it, compared. Pure.

Money is counted in micro-dollars, whole numbers: sums of binary fractions drift.
"""

import re
from collections.abc import Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any

import msgspec

from gateway.core import wildcards

_BUDGET = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?(?:/(day|week|month))?")
_COUNTS = ("rpm", "tpm", "max_parallel")
_LARGEST_COUNT = 10**12
_MOST_PATTERNS = 100
_LONGEST_PATTERN = 256
_MAX_TOUCHED: Mapping[tuple[str | None, str | None], int] = MappingProxyType(
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
        times = 1 if self.per is None else _MAX_TOUCHED.get((self.per, other.per), 1)
        return self.micro_usd * times <= other.micro_usd


def _within_both(one: Budget, other: Budget) -> Budget:
    """The larger budget that keeps to both, as far as one budget can say it."""
    if one.is_within(other):
        return one
    if other.is_within(one):
        return other
    for short, long in ((one, other), (other, one)):
        share = long.micro_usd // _MAX_TOUCHED.get((short.per, long.per), long.micro_usd + 1)
        if share > 0:
            return Budget(min(short.micro_usd, share), short.per)
    return Budget(min(one.micro_usd, other.micro_usd))


class LimitSet(msgspec.Struct, frozen=True, kw_only=True):
    """Requests and model tokens a minute, requests at a time, money. None: not limited.

    ``models`` has further limits for the models that a pattern fits; all the models of one pattern share them.
    """

    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None
    budget: Budget | None = None
    models: tuple[tuple[str, "LimitSet"], ...] = ()

    def is_within(self, other: "LimitSet") -> bool:
        """Whether each of the other's limits is here, and not above it."""
        for name in _COUNTS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs is not None and (mine is None or mine > theirs):
                return False
        if other.budget is not None and (self.budget is None or not self.budget.is_within(other.budget)):
            return False
        return all(self._on(pattern).is_within(theirs) for pattern, theirs in other.models)

    def _on(self, pattern: str) -> "LimitSet":
        """What holds here, at the least, for all the models of a pattern together."""
        covering = (limits for mine, limits in self.models if wildcards.matches(mine, pattern))
        return reduce(LimitSet.and_also, covering, msgspec.structs.replace(self, models=()))

    def and_also(self, other: "LimitSet") -> "LimitSet":
        """What keeps to both."""
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
        """Only what is set."""
        found: dict[str, Any] = {name: value for name in _COUNTS if (value := getattr(self, name)) is not None}
        if self.budget is not None:
            found["budget"] = str(self.budget)
        if self.models:
            found["models"] = {pattern: limits.as_json() for pattern, limits in self.models}
        return found


NO_LIMITS = LimitSet()


def read_limits(value: Any) -> LimitSet | None:
    """Raises LimitError; also for a name that is not known, because a limit that nobody understands limits nothing."""
    if value is None:
        return None
    found = _limit_set("limits", value, (*_COUNTS, "budget", "models"))
    return None if found == NO_LIMITS else found


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
    if not isinstance(value, dict) or len(value) > _MOST_PATTERNS:
        raise LimitError("limits.models", f"must be an object of at most {_MOST_PATTERNS} model names or patterns")
    found = []
    for pattern, limits in value.items():
        if not 1 <= len(pattern) <= _LONGEST_PATTERN or not pattern.isprintable():
            rule = f"must be printable text of 1 to {_LONGEST_PATTERN} characters"
            raise LimitError("limits.models", f"has a model name that is none: it {rule}")
        read = _limit_set(f"limits.models.{pattern}", limits, (*_COUNTS, "budget"))
        if read != NO_LIMITS:
            found.append((pattern, read))
    return tuple(found)


def _count(field: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST_COUNT:
        raise LimitError(field, f"must be a whole number, 1 to {_LARGEST_COUNT}")
    return value


def _budget(field: str, value: Any) -> Budget | None:
    if value is None:
        return None
    found = _BUDGET.fullmatch(value) if isinstance(value, str) else None
    micro_usd = int(found[1]) * 1_000_000 + int((found[2] or "").ljust(6, "0")) if found else 0
    if found is None or micro_usd == 0:
        raise LimitError(field, "must be a text such as 10, 2.50/day, 20/week or 100/month, in USD")
    return Budget(micro_usd, found[3])
