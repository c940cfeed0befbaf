"""Which model of a list a name means. Names are matched without regard to case, the first model that fits is meant."""

import re
from collections.abc import Iterable
from datetime import date

import msgspec

_COMPACT_DATE = re.compile(r"-(20[0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])(?=-|:|$)")


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Fits a name in lower case where any of its parts does. All texts but the expressions are in lower case."""

    equals: tuple[str, ...] = ()
    starts_with: tuple[str, ...] = ()
    ends_with: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    regex: tuple[tuple[str, str], ...] = ()
    """Each with the text that every name which fits begins with: few expressions are ever compiled then."""
    every: tuple[tuple["Rule", ...], ...] = ()
    """Groups; one fits where all of its rules do."""

    def fits(self, name: str) -> bool:
        return name in self.equals or self.fits_beyond_equals(name)

    def fits_beyond_equals(self, name: str) -> bool:
        return (
            name.startswith(self.starts_with)
            or name.endswith(self.ends_with)
            or (bool(self.contains) and any(part in name for part in self.contains))
            or (
                bool(self.regex) and any(name.startswith(start) and re.search(text, name) for start, text in self.regex)
            )
            or (bool(self.every) and any(all(rule.fits(name) for rule in group) for group in self.every))
        )

    @property
    def is_only_equals(self) -> bool:
        return not (self.starts_with or self.ends_with or self.contains or self.regex or self.every)


class Matcher:
    """The rules of one provider's models, in order: whole names are looked up, only the rest is tried one by one."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._whole: dict[str, int] = {}
        self._others: list[tuple[int, Rule]] = []
        for place, rule in enumerate(rules):
            for name in rule.equals:
                self._whole.setdefault(name, place)
            if not rule.is_only_equals:
                self._others.append((place, rule))
        self._hint = _hint([rule for _, rule in self._others])

    def knows(self, name: str) -> bool:
        """Whether a rule says this very name, in lower case."""
        return name in self._whole

    def find(self, name: str) -> int | None:
        """The place of the first rule that fits a name in lower case."""
        found = self._find(name)
        if found is None and (dashed := _with_dashed_date(name)) != name:
            found = self._find(dashed)
        return found

    def _find(self, name: str) -> int | None:
        whole = self._whole.get(name)
        if not self._hint.fits_beyond_equals(name):
            return whole
        for place, rule in self._others:
            if whole is not None and place >= whole:
                break
            if rule.fits_beyond_equals(name):
                return place
        return whole


def _hint(rules: list[Rule]) -> Rule:
    """Fits whatever one of the rules fits beyond equals, and a little more; in a fraction of the time."""
    starts = (text for rule in rules for text in (*rule.starts_with, *(start for start, _ in rule.regex)))
    return Rule(
        starts_with=tuple(starts),
        ends_with=tuple(text for rule in rules for text in rule.ends_with),
        contains=tuple(text for rule in rules for text in rule.contains),
        every=tuple(group for rule in rules for group in rule.every),
    )


def _with_dashed_date(name: str) -> str:
    """``gpt-5.2-20251211`` is what some resellers call ``gpt-5.2-2025-12-11``."""
    return _COMPACT_DATE.sub(_dashed, name)


def _dashed(found: re.Match[str]) -> str:
    try:
        return f"-{date(int(found[1]), int(found[2]), int(found[3])).isoformat()}"
    except ValueError:
        return found[0]
