"""Which model a name means: the first rule that matches, exact names and patterns alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage.pricing.matching import Matcher, Rule

PARTS = st.lists(st.text("ab-", min_size=1, max_size=3), max_size=2).map(tuple)
REGEXES = st.lists(st.sampled_from([("a", "^a.*b$"), ("", "-b"), ("b", "^b")]), max_size=1).map(tuple)
SIMPLE = st.builds(Rule, equals=PARTS, starts_with=PARTS, ends_with=PARTS, contains=PARTS, regex=REGEXES)
GROUPS = st.lists(st.lists(SIMPLE, min_size=1, max_size=2).map(tuple), max_size=1).map(tuple)
RULES = st.builds(Rule, equals=PARTS, starts_with=PARTS, ends_with=PARTS, contains=PARTS, regex=REGEXES, every=GROUPS)


@pytest.mark.parametrize(
    ("rule", "matching", "others"),
    [
        (Rule(), [], ["", "a"]),
        (Rule(equals=("a", "b")), ["a", "b"], ["", "ab", "c"]),
        (Rule(starts_with=("ab", "x")), ["ab", "abc", "x"], ["a", "cab"]),
        (Rule(ends_with=("-mini", "-x")), ["a-mini", "-x"], ["-mini-a"]),
        (Rule(contains=("b",)), ["b", "abc"], ["", "ac"]),
        (Rule(regex=(("gpt-", r"^gpt-\d+$"),)), ["gpt-4"], ["gpt-x", "a-gpt-4"]),
        (Rule(regex=(("a", "b"),)), ["ab"], ["cb"]),
        (Rule(every=((Rule(starts_with=("a",)), Rule(ends_with=("z",))),)), ["az", "abz"], ["a", "z"]),
        (Rule(ends_with=("-x",), every=((Rule(starts_with=("a",)), Rule(equals=("ab", "bb"), contains=("c",))),)),
         ["ab", "abc", "q-x"], ["bb", "a"]),
    ],
)  # fmt: skip
def test_a_rule_matches_if_one_part_does(rule: Rule, matching: list[str], others: list[str]) -> None:
    assert [name for name in (*matching, *others) if rule.matches(name)] == matching


@pytest.mark.parametrize(
    ("rule", "is_only_equals"),
    [
        (Rule(), True),
        (Rule(equals=("a",)), True),
        (Rule(equals=("a",), starts_with=("b",)), False),
        (Rule(ends_with=("b",)), False),
        (Rule(contains=("b",)), False),
        (Rule(regex=(("b", "b"),)), False),
        (Rule(every=((Rule(),),)), False),
    ],
)
def test_a_rule_of_exact_names_needs_no_search(rule: Rule, is_only_equals: bool) -> None:
    assert rule.is_only_equals is is_only_equals


@given(st.lists(RULES, max_size=5), st.text("ab-", max_size=5))
def test_the_first_rule_that_matches_is_meant(rules: list[Rule], name: str) -> None:
    expected = next((index for index, rule in enumerate(rules) if rule.matches(name)), None)
    assert Matcher(rules).find(name) == expected


def test_a_pattern_comes_before_an_exact_name_behind_it_only() -> None:
    matcher = Matcher([Rule(equals=("ab",)), Rule(starts_with=("a",)), Rule(equals=("ac",))])
    assert [matcher.find(name) for name in ("ab", "ac", "ad", "b")] == [0, 1, 1, None]


def test_exact_names_are_known() -> None:
    matcher = Matcher([Rule(equals=("a", "b"), starts_with=("c",))])
    assert [name for name in ("a", "b", "c") if matcher.has_exact(name)] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gpt-5.2-20251211", 0),
        ("gpt-5.2-20251211:free", 1),
        ("gpt-5.2-20251211-tts", 2),
        ("gpt-5.2-20250231", None),
        ("gpt-5.2-202512111", None),
        ("gpt-5.2-19991211", None),
        ("gpt-5.220251211", None),
        ("20251211", 3),
    ],
)
def test_a_compact_date_means_the_same_as_one_with_dashes(name: str, found: int | None) -> None:
    names = ("gpt-5.2-2025-12-11", "gpt-5.2-2025-12-11:free", "gpt-5.2-2025-12-11-tts", "20251211")
    assert Matcher([Rule(equals=(each,)) for each in names]).find(name) == found
