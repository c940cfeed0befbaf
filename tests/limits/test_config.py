"""Limits are read strictly, written as they were read, and compared so that a child never gets more than its parent."""

from datetime import date, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.config import Budget, LimitError, LimitSet, read_limits

COUNTS = st.none() | st.integers(1, 10**12)
WINDOWS = st.sampled_from([None, "day", "week", "month"])
BUDGETS = st.builds(Budget, micro_usd=st.integers(1, 10**9 * 10**6 - 1), per=WINDOWS)
PLAIN = st.builds(LimitSet, rpm=COUNTS, tpm=COUNTS, max_parallel=COUNTS, budget=st.none() | BUDGETS)
PATTERNS = st.sampled_from(["gpt-4o", "gpt-4*", "*", "*-mini", "claude"])
BY_MODEL = st.dictionaries(PATTERNS, PLAIN.filter(lambda limits: limits != LimitSet()), max_size=3)
SETS = st.builds(lambda plain, models: msgspec.structs.replace(plain, models=tuple(models.items())), PLAIN, BY_MODEL)


@pytest.mark.parametrize(
    ("value", "micro_usd", "per"),
    [
        ("10", 10_000_000, None),
        ("2.5/day", 2_500_000, "day"),
        ("0.000001/week", 1, "week"),
        ("999999999.999999/month", 999_999_999_999_999, "month"),
        ("007", 7_000_000, None),
    ],
)
def test_a_budget_is_money_for_a_window(value: str, micro_usd: int, per: str | None) -> None:
    found = read_limits({"budget": value})
    assert found is not None
    assert found.budget == Budget(micro_usd, per)


BAD: list[tuple[Any, str]] = [
    ([], "limits"),
    ("rpm=1", "limits"),
    (0, "limits"),
    ({"RPM": 1}, "limits.RPM"),
    ({"requests_per_minute": 1}, "limits.requests_per_minute"),
    *[({name: bad}, f"limits.{name}") for name in ("rpm", "tpm", "max_parallel") for bad in (0, -1, 1.0, "1", True, 10**13, [])],
    *[
        ({"budget": bad}, "limits.budget")
        for bad in ("", "0", "0.00/day", "-1", "1e3", "1.", ".5", "1.0000001", "1/year", "1 /day", "$1", 1, 1.5, True, {}, "٣")
    ],
]  # fmt: skip


@pytest.mark.parametrize(("value", "field"), BAD)
def test_an_invalid_limit_is_refused_by_name(value: Any, field: str) -> None:
    with pytest.raises(LimitError) as caught:
        read_limits(value)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [None, {}, {"rpm": None, "budget": None}])
def test_nothing_limits_nothing(value: Any) -> None:
    assert read_limits(value) is None


@given(SETS)
def test_what_is_written_is_what_is_read(limits: LimitSet) -> None:
    assert read_limits(limits.as_json()) == (None if limits == LimitSet() else limits)


@given(SETS)
def test_a_set_is_within_itself_and_within_the_empty_set(limits: LimitSet) -> None:
    assert limits.is_within(limits)
    assert limits.is_within(LimitSet())
    assert LimitSet().is_within(limits) == (limits == LimitSet())


@given(SETS, SETS, SETS)
def test_within_is_transitive(a: LimitSet, b: LimitSet, c: LimitSet) -> None:
    if a.is_within(b) and b.is_within(c) and None not in (a.budget, b.budget, c.budget):
        assert a.rpm is None or c.rpm is None or a.rpm <= c.rpm


@given(SETS, SETS)
def test_two_sets_together_keep_to_both(one: LimitSet, other: LimitSet) -> None:
    both = one.and_also(other)
    assert both.is_within(one)
    assert both.is_within(other)
    assert one.and_also(LimitSet()) == one


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("10/day", "50/week", "7.142857/day"),
        ("5/day", "50/week", "5/day"),
        ("10/day", "100", "10"),
        ("0.000005/day", "0.000020/month", "0.000005"),
        ("10/month", "3/day", "0.322580/day"),
        ("0.000005/day", "0.000007/week", "0.000001/day"),
    ],
)
def test_two_budgets_together(one: str, other: str, both: str) -> None:
    sets = [read_limits({"budget": text}) or LimitSet() for text in (one, other, both)]
    assert sets[0].and_also(sets[1]) == sets[1].and_also(sets[0]) == sets[2]


STARTS = st.dates(date(2020, 1, 1), date(2035, 12, 31))


def window(day: date, per: str | None) -> Any:
    """Which window a day falls into: calendar days, ISO weeks, calendar months."""
    return {None: 0, "day": day, "week": day.isocalendar()[:2], "month": (day.year, day.month)}[per]


@given(BUDGETS, BUDGETS, STARTS)
def test_spending_within_a_budget_is_within_every_budget_that_it_is_within(
    mine: Budget, theirs: Budget, start: date
) -> None:
    """The most that can be spent under the one - all of it at once, in each window anew - never passes the other."""
    if not mine.is_within(theirs):
        return
    spent: dict[Any, int] = {}
    begun = set()
    for day in (start + timedelta(days=n) for n in range(70)):
        if (mine_now := window(day, mine.per)) not in begun:
            begun.add(mine_now)
            theirs_now = window(day, theirs.per)
            spent[theirs_now] = spent.get(theirs_now, 0) + mine.micro_usd
    assert max(spent.values()) <= theirs.micro_usd


@pytest.mark.parametrize(
    ("mine", "theirs", "within"),
    [
        ("1/day", "7/week", True),
        ("1/day", "6.99/week", False),
        ("1/day", "31/month", True),
        ("1/day", "30/month", False),
        ("7/week", "1/day", False),
        ("1/month", "1/day", True),
        ("1/week", "6/month", True),
        ("1/week", "5.999999/month", False),
        ("1/month", "2/week", True),
        ("1/month", "1.999999/week", False),
        ("5", "5/day", True),
        ("1/day", "1000", False),
    ],
)
def test_windows_of_different_length(mine: str, theirs: str, within: bool) -> None:
    budgets = [read_limits({"budget": text}) for text in (mine, theirs)]
    assert budgets[0] is not None
    assert budgets[1] is not None
    assert budgets[0].is_within(budgets[1]) is within


def test_limits_on_models_are_read_and_written() -> None:
    value = {"rpm": 60, "models": {"gpt-4o*": {"rpm": 5, "budget": "1/day"}, "o3": {"max_parallel": 1}}}
    found = read_limits(value)
    assert found is not None
    assert found.as_json() == value


BAD_MODELS: list[tuple[Any, str]] = [
    ([], "limits.models"),
    ({"m": []}, "limits.models.m"),
    ({"m": {"rpm": 0}}, "limits.models.m.rpm"),
    ({"m": {"rps": 1}}, "limits.models.m.rps"),
    ({"m": {"models": {}}}, "limits.models.m.models"),
    ({"": {"rpm": 1}}, "limits.models"),
    ({"a\nb": {"rpm": 1}}, "limits.models"),
    ({"x" * 257: {"rpm": 1}}, "limits.models"),
    ({str(number): {"rpm": 1} for number in range(101)}, "limits.models"),
]


@pytest.mark.parametrize(("models", "field"), BAD_MODELS)
def test_an_invalid_limit_on_models_is_refused_by_name(models: Any, field: str) -> None:
    with pytest.raises(LimitError) as caught:
        read_limits({"models": models})
    assert caught.value.field == field


def test_a_model_without_limits_is_left_out() -> None:
    assert read_limits({"models": {"m": {}, "n": {"rpm": None}}}) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "is_within"),
    [
        ({"models": {"gpt-4o*": {"rpm": 5}}}, {"models": {"gpt-4o*": {"rpm": 5}}}, True),
        ({"models": {"gpt-4*": {"rpm": 5}}}, {"models": {"gpt-4o": {"rpm": 5}}}, True),
        ({"models": {"gpt-4o": {"rpm": 5}}}, {"models": {"gpt-4*": {"rpm": 5}}}, False),
        ({"rpm": 5}, {"models": {"gpt-4*": {"rpm": 5}}}, True),
        ({"models": {"*": {"rpm": 5}}}, {"rpm": 5}, False),
        ({}, {"models": {"gpt-4*": {"rpm": 5}}}, False),
        ({"rpm": 9, "models": {"gpt*": {"budget": "1"}}}, {"models": {"gpt-4*": {"rpm": 9, "budget": "2"}}}, True),
    ],
)
def test_limits_on_models_are_compared_by_pattern(mine: Any, theirs: Any, is_within: bool) -> None:
    """A pattern covers another that it fits, and the limits on everything cover every pattern."""
    assert (read_limits(mine) or LimitSet()).is_within(read_limits(theirs) or LimitSet()) == is_within


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "`limits` must be an object or null"),
        ({"rps": 1}, "`limits.rps` is not one of rpm, tpm, max_parallel, budget, models"),
        ({"rpm": 0}, "`limits.rpm` must be a whole number, 1 to 1000000000000"),
        ({"budget": 5}, "`limits.budget` must be a string such as 10, 2.50/day, 20/week or 100/month, in USD"),
        ({"models": []}, "`limits.models` must be an object of at most 100 model names or patterns"),
        ({"models": {"m": 1}}, "`limits.models.m` must be an object"),
        ({"models": {"m": {"models": {}}}}, "`limits.models.m.models` is not one of rpm, tpm, max_parallel, budget"),
        (
            {"models": {"": {}}},
            "`limits.models` has an invalid model name: it must be a printable string of 1 to 256 characters",
        ),
    ],
)
def test_the_message_says_what_is_allowed(value: Any, message: str) -> None:
    with pytest.raises(LimitError) as caught:
        read_limits(value)
    assert str(caught.value) == message
    assert f"`{caught.value.field}` {caught.value.rule}" == message


@pytest.mark.parametrize("value", [1, 10**12])
def test_the_lowest_and_the_highest_count_are_read(value: int) -> None:
    found = read_limits({"rpm": value, "tpm": value, "max_parallel": value})
    assert found == LimitSet(rpm=value, tpm=value, max_parallel=value)


def test_as_many_patterns_as_allowed_are_read() -> None:
    found = read_limits({"models": {f"{number:0256}": {"rpm": 1} for number in range(100)}})
    assert found is not None
    assert len(found.models) == 100


def test_a_month_overlaps_at_most_six_weeks_and_a_week_two_months() -> None:
    """By the calendar of 400 years, after which it repeats."""
    weeks: dict[Any, set[Any]] = {}
    months: dict[Any, set[Any]] = {}
    for day in (date(2000, 1, 1) + timedelta(days=number) for number in range(146_097)):
        week, month = window(day, "week"), window(day, "month")
        weeks.setdefault(month, set()).add(week)
        months.setdefault(week, set()).add(month)
    overlaps = {"week": max(map(len, weeks.values())), "month": max(map(len, months.values()))}
    assert overlaps == {"week": 6, "month": 2}
    for short, long in (("week", "month"), ("month", "week")):
        most = Budget(overlaps[short] * 100, long)
        assert Budget(100, short).is_within(most)
        assert not Budget(101, short).is_within(most)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({"rpm": 5, "tpm": 9}, {"rpm": 7, "max_parallel": 1}, {"rpm": 5, "tpm": 9, "max_parallel": 1}),
        ({"models": {"a": {"rpm": 5}}}, {"models": {"b": {"rpm": 1}}}, {"models": {"a": {"rpm": 5}, "b": {"rpm": 1}}}),
        ({"models": {"a": {"rpm": 5}}}, {"models": {"a": {"tpm": 1}}}, {"models": {"a": {"rpm": 5, "tpm": 1}}}),
        ({"budget": "5"}, {"rpm": 1}, {"rpm": 1, "budget": "5"}),
        ({"budget": "0.000005/week"}, {"budget": "0.000003/day"}, {"budget": "0.000003"}),
        ({"budget": "0.000001/month"}, {"budget": "0.000001/week"}, {"budget": "0.000001"}),
    ],
)
def test_two_sets_together_have_the_lower_of_each_limit(one: Any, other: Any, both: Any) -> None:
    found = (read_limits(one) or LimitSet()).and_also(read_limits(other) or LimitSet())
    assert found.as_json() == both


@pytest.mark.parametrize(("micro_usd", "text"), [(10_000_000, "10"), (2_500_000, "2.5"), (1, "0.000001")])
def test_a_budget_is_written_as_it_is_read(micro_usd: int, text: str) -> None:
    assert [str(Budget(micro_usd, per)) for per in (None, "day")] == [text, f"{text}/day"]


def test_a_budget_that_is_renewed_is_within_none_that_is_not() -> None:
    assert Budget(1, "day").is_within(Budget(10**9)) is False


def test_equal_limits_have_equal_hashes() -> None:
    assert len({LimitSet(rpm=1, budget=Budget(1, "day")), LimitSet(rpm=1, budget=Budget(1, "day"))}) == 1


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"rpm": 5}, {"rpm": 5}),
        ({"rpm": 5}, {"rpm": 4, "tpm": 1}),
        ({"budget": "2/day"}, {"budget": "1.5/day"}),
        ({"models": {"gpt-4*": {"rpm": 5}}}, {"models": {"GPT-4**": {"rpm": 5}, "claude": {"rpm": 1}}}),
        ({"models": {"gpt-4*": {"budget": "2"}}}, {"rpm": 1, "models": {"gpt-4*": {"budget": "1", "rpm": 3}}}),
    ],
)
def test_a_set_may_be_narrowed(earlier: Any, later: Any) -> None:
    assert (read_limits(later) or LimitSet()).narrows(read_limits(earlier) or LimitSet())


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"rpm": 5}, {}),
        ({"rpm": 5}, {"rpm": 6}),
        ({"tpm": 5}, {"tpm": 6}),
        ({"max_parallel": 5}, {"rpm": 1}),
        ({"budget": "2/day"}, {}),
        ({"budget": "2/day"}, {"budget": "2.000001/day"}),
        *[
            ({"budget": f"2{earlier}"}, {"budget": f"0.01{later}"})
            for earlier in ("", "/day", "/week", "/month")
            for later in ("", "/day", "/week", "/month")
            if earlier != later
        ],
        ({"models": {"gpt-4*": {"rpm": 5}}}, {"rpm": 1}),
        ({"models": {"gpt-4*": {"rpm": 5}}}, {"models": {"gpt-*": {"rpm": 5}}}),
        ({"models": {"gpt-4*": {"rpm": 5}}}, {"models": {"gpt-4*": {"rpm": 6}}}),
        ({"models": {"gpt-4*": {"budget": "1/day"}}}, {"models": {"gpt-4*": {"budget": "1/week"}}}),
    ],
)
def test_a_limit_that_is_larger_or_counts_anew_is_no_narrowing(earlier: Any, later: Any) -> None:
    assert not (read_limits(later) or LimitSet()).narrows(read_limits(earlier) or LimitSet())


@given(SETS, SETS)
def test_a_narrowed_set_is_within_the_earlier_one(earlier: LimitSet, later: LimitSet) -> None:
    assert earlier.narrows(earlier)
    if later.narrows(earlier):
        assert later.is_within(earlier)
    assert earlier.and_also(LimitSet(rpm=1)).narrows(earlier)


def test_limits_of_two_spellings_of_a_pattern_are_both_kept() -> None:
    found = read_limits({"models": {"gpt-4*": {"rpm": 5, "tpm": 9}, "GPT-4**": {"rpm": 3}, "gpt-4***": {}}})
    assert found is not None
    assert found.as_json() == {"models": {"gpt-4*": {"rpm": 3, "tpm": 9}}}
