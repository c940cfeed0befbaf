"""Finds the model of a price list that a name means: the first one whose rule matches, without regard to case."""

import re
from collections.abc import Iterable
from datetime import date

import msgspec

_COMPACT_DATE = re.compile(r"-(20[0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])(?=-|:|$)")


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Matches a name in lower case if any of its parts does. All strings but the regular expressions are in lower case."""

    equals: tuple[str, ...] = ()
    starts_with: tuple[str, ...] = ()
    ends_with: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    regex: tuple[tuple[str, str], ...] = ()
    """Pairs of the prefix of every name that matches, and the regular expression: few expressions are ever compiled."""
    every: tuple[tuple["Rule", ...], ...] = ()
    """Groups of rules. A group matches if all of its rules do."""

    def matches(self, name: str) -> bool:
        """Returns whether the rule matches a name in lower case."""
        return name in self.equals or self.matches_pattern(name)

    def matches_pattern(self, name: str) -> bool:
        """Returns whether a part other than ``equals`` matches."""
        return (
            name.startswith(self.starts_with)
            or name.endswith(self.ends_with)
            or (bool(self.contains) and any(part in name for part in self.contains))
            or (
                bool(self.regex) and any(name.startswith(start) and re.search(text, name) for start, text in self.regex)
            )
            or (bool(self.every) and any(all(rule.matches(name) for rule in group) for group in self.every))
        )

    @property
    def is_only_equals(self) -> bool:
        """Whether the rule has no part other than ``equals``."""
        return not (self.starts_with or self.ends_with or self.contains or self.regex or self.every)


class Matcher:
    """The rules of one provider's models, in order. Exact names are looked up; only the patterns are tried one by one."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._exact: dict[str, int] = {}
        self._patterns: list[tuple[int, Rule]] = []
        for index, rule in enumerate(rules):
            for name in rule.equals:
                self._exact.setdefault(name, index)
            if not rule.is_only_equals:
                self._patterns.append((index, rule))
        self._any_pattern = _union([rule for _, rule in self._patterns])

    def has_exact(self, name: str) -> bool:
        """Returns whether a rule names exactly this name, in lower case."""
        return name in self._exact

    def find(self, name: str) -> int | None:
        """Returns the index of the first rule that matches a name in lower case; None if none does.

        Where none does, a date such as 20251211 in the name is also tried as 2025-12-11.
        """
        found = self._find(name)
        if found is None and (dashed := _dash_date(name)) != name:
            found = self._find(dashed)
        return found

    def _find(self, name: str) -> int | None:
        exact = self._exact.get(name)
        if not self._any_pattern.matches_pattern(name):
            return exact
        for index, rule in self._patterns:
            if exact is not None and index >= exact:
                break
            if rule.matches_pattern(name):
                return index
        return exact


def _union(rules: list[Rule]) -> Rule:
    """Returns a rule that matches every name which a pattern of the rules matches, and a few more, in a fraction of the time."""
    starts = (text for rule in rules for text in (*rule.starts_with, *(start for start, _ in rule.regex)))
    return Rule(
        starts_with=tuple(starts),
        ends_with=tuple(text for rule in rules for text in rule.ends_with),
        contains=tuple(text for rule in rules for text in rule.contains),
        every=tuple(group for rule in rules for group in rule.every),
    )


def _dash_date(name: str) -> str:
    """Returns the name with dashes in its date: some resellers say ``gpt-5.2-20251211`` for ``gpt-5.2-2025-12-11``."""
    return _COMPACT_DATE.sub(_dash, name)


def _dash(found: re.Match[str]) -> str:
    try:
        return f"-{date(int(found[1]), int(found[2]), int(found[3])).isoformat()}"
    except ValueError:
        return found[0]
